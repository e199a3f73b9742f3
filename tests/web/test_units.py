"""The unit tests of the browser half, and its types: they are part of the whole."""

import os
import subprocess

import pytest

from tests.web.browser import ROOT, built_ui
from tests.web.test_build import ui


@pytest.mark.parametrize("script", ["test", pytest.param("check", marks=pytest.mark.long)])
def test_the_browser_half_passes_its_own(script: str) -> None:
    built_ui()
    node = ui.find_node(os.environ["PATH"], ui.wheel_packages())
    env = os.environ | {"PATH": f"{node.folder}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    command = [*node.npm, "--prefix", str(ROOT / "ui"), "run", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
