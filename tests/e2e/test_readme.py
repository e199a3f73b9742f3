"""The README's own example works as printed."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from pstp.broker.ports import free_port
from tests.support.system import until

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"<!-- test: (?P<how>[^\n]*?) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)


def test_the_readme_example_works_as_printed(tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    env = {k: v for k, v in os.environ.items() if not k.startswith("PSTP_")} | {
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "PSTP_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",  # 9092 may be in use here
    }
    background: list[subprocess.Popen[bytes]] = []
    log_path = tmp_path / "dev.log"
    outputs: list[str] = []
    try:
        for block in BLOCK.finditer(README.read_text(encoding="utf-8")):
            how, text = block["how"], block["text"]
            if how.startswith("file "):
                (tmp_path / how.removeprefix("file ")).write_text(text, encoding="utf-8")
            elif how.startswith("background"):
                with log_path.open("wb") as log:
                    command = shlex.split(text.removeprefix("$ "))
                    background.append(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log))
                wanted = how.split('"')[1]
                until(lambda w=wanted: w in log_path.read_text(), 60, f"{wanted!r} in the log")
            elif how == "run":
                outputs += [_run(["bash", "-c", line.removeprefix("$ ")], tmp_path, env) for line in text.splitlines()]
            elif how == "run until it does":  # it waits for what was asked for before
                outputs += [_insist(line.removeprefix("$ "), tmp_path, env) for line in text.splitlines()]
            elif how == "python":
                outputs.append(_run([sys.executable, "-c", text], tmp_path, env))
    finally:
        for process in background:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert len(outputs) == 15
    assert "redriven: 1 of 1" in outputs[11] and "paused by" in outputs[13]
    assert "published task" in outputs[0]
    assert all(process.returncode == 0 for process in background)


def _insist(line: str, folder: Path, env: dict[str, str]) -> str:
    def done() -> str:
        ran = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
        return ran.stdout if ran.returncode == 0 else ""

    return until(done, 60, line)


def _run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
