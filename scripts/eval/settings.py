"""The settings of a run, from the environment."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"

# What the worker sends as well, unless it is told otherwise: the baseline is to be written
# under the same conditions.
TEMPERATURE = 0.4
LOCAL_REPEAT_PENALTY = 1.1


@dataclass(frozen=True)
class Settings:
    only: str  # EVAL_ONLY: which topics
    out: str  # EVAL_OUT: the folder for what is found
    programs: str  # EVAL_BIN: the folder with the programs api and worker
    extra_body: dict  # EVAL_EXTRA_BODY: merged into every request to the model
    with_baseline: bool  # EVAL_BASELINE=off leaves it out
    timeout: float  # EVAL_TIMEOUT_SECS: for one post
    seed: int  # EVAL_SEED: for the order of the blind pairs
    agent: dict[str, str]  # all variables that begin with AGENT, for the worker

    @property
    def kind(self) -> str:
        """openai, anthropic, script, or nothing for the local model."""
        return self.agent.get("AGENT", "")

    @property
    def chat_url(self) -> str | None:
        """Where the same model speaks OpenAI's protocol; None for a program."""
        default = {"": None, "openai": OPENAI_URL, "anthropic": ANTHROPIC_URL}.get(self.kind)
        url = self.agent.get("AGENT_URL") or default
        if self.kind == "script" or url is None:
            return None
        url = url.rstrip("/").removesuffix("/chat/completions")
        return f"{url}/v1" if self.kind == "anthropic" and not url.endswith("/v1") else url


def from_environment(environment: dict[str, str]) -> Settings:
    get = lambda name, default="": environment.get(name) or default
    # An empty variable is one that is not set, as for the programs.
    agent = {name: value for name, value in environment.items() if name.startswith("AGENT") and value}
    extra = {
        **_default_body(agent),
        **_object("AGENT_EXTRA_BODY", agent.get("AGENT_EXTRA_BODY", "{}")),
        **_object("EVAL_EXTRA_BODY", get("EVAL_EXTRA_BODY", "{}")),
    }
    return Settings(
        only=get("EVAL_ONLY"),
        out=get("EVAL_OUT"),
        programs=get("EVAL_BIN"),
        extra_body=extra,
        with_baseline=get("EVAL_BASELINE") != "off",
        timeout=float(get("EVAL_TIMEOUT_SECS", "3600")),
        seed=int(get("EVAL_SEED", "1")),
        agent=agent,
    )


def _object(name: str, text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        sys.exit(f'{name}: write a JSON object, such as {{"seed": 1, "temperature": 0}}')
    return value


def _default_body(agent: dict[str, str]) -> dict:
    kind, url = agent.get("AGENT", ""), agent.get("AGENT_URL", OPENAI_URL)
    if kind == "":
        return {"seed": 1, "temperature": TEMPERATURE, "repeat_penalty": LOCAL_REPEAT_PENALTY}
    if kind != "openai":
        return {}
    # OpenAI's newer models refuse any temperature but their own.
    is_openai = urlsplit(url).hostname == "api.openai.com"
    return {"seed": 1} if is_openai else {"seed": 1, "temperature": TEMPERATURE}


def find_programs(settings: Settings) -> Path:
    """The folder with the programs: that of EVAL_BIN, else the release build, brought up to
    date so that nothing old is measured."""
    if settings.programs:
        folder = Path(settings.programs).resolve()
        if not all((folder / name).is_file() for name in ("api", "worker")):
            sys.exit(f"EVAL_BIN: there are no programs api and worker in {folder}")
        return folder
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--package", "api", "--package", "worker", "--bins"],
        cwd=ROOT,
        check=True,
    )
    return (ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release").resolve()
