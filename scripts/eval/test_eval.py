"""A whole run of the real programs against a model that is none. Needs them built: those of
EVAL_BIN, or of target/debug."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from settings import ROOT
from stub_model import StubModel

PROGRAMS = Path(os.environ.get("EVAL_BIN") or ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug")
IS_BUILT = all((PROGRAMS / name).is_file() for name in ("api", "worker"))


@unittest.skipUnless(IS_BUILT, f"there are no programs in {PROGRAMS}")
class WholeRun(unittest.TestCase):
    def evaluate(self, model: StubModel, out: str) -> str:
        environment = {
            "PATH": os.environ["PATH"], "EVAL_BIN": str(PROGRAMS), "EVAL_OUT": out,
            "EVAL_ONLY": "howto-puncture,zh-lvcha", "EVAL_EXTRA_BODY": '{"seed": 5}',
            "AGENT": "openai", "AGENT_URL": model.url, "AGENT_MODEL": "stub",
        }
        command = [sys.executable, Path(__file__).with_name("main.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_posts_are_written_measured_and_shown(self):
        with StubModel() as model, tempfile.TemporaryDirectory() as out:
            first = self.evaluate(model, out)
            report = json.loads((Path(out) / "report.json").read_text())
            self.check(report, Path(out), model)
            again = self.evaluate(model, out)
            self.assertIn("before (2)", again)
            digest = [line for line in first.split("\n") if "SHA-256" in line]
            self.assertEqual(digest, [line for line in again.split("\n") if "SHA-256" in line])
            self.assertEqual(len([body for body in model.requests if not body.get("stream")]), 2)

    def check(self, report: dict, out: Path, model: StubModel) -> None:
        for side in ("ours", "baseline"):
            self.assertEqual(list(report[side]), ["howto-puncture", "zh-lvcha"])
            for run in report[side].values():
                self.assertEqual(run["status"], "succeeded")
                self.assertGreater(min(run["calls"], run["output_tokens"], run["measures"]["words"]), 0)
        self.assertFalse(report["ours"]["zh-lvcha"]["measures"]["language_kept"])
        self.assertEqual(report["ours"]["howto-puncture"]["calls"], self.calls(model, "puncture|bicycle"))
        for name in ("report.html", "blind.html"):
            self.assertNotIn("<script", (out / name).read_text())
        self.assertEqual(len(json.loads((out / "blind.json").read_text())), 2)
        if self.worker_knows("AGENT_EXTRA_BODY"):
            self.assertEqual({body.get("seed") for body in model.requests}, {5})

    def calls(self, model: StubModel, words: str) -> int:
        return sum(
            any(word in json.dumps(body["messages"]) for word in words.split("|"))
            for body in model.requests
            if body.get("stream")
        )

    def worker_knows(self, setting: str) -> bool:
        shown = subprocess.run([PROGRAMS / "worker", "--help"], capture_output=True, text=True, cwd="/")
        return setting in shown.stdout


if __name__ == "__main__":
    unittest.main()
