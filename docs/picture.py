"""Runs the demo and draws its closing report, for the README: `python docs/picture.py [ROWS]`."""

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pstp.demo.run import main

TARGET = Path(__file__).parent / "demo.svg"


def draw(rows: int | None) -> int:
    """The demo's exit code; the picture shows what a terminal shows from the first kill on."""
    console = Console(record=True, width=100, force_terminal=False)
    with tempfile.TemporaryDirectory() as folder:
        code = main(rows, Path(folder) / "demo", seed=1, console=console)
    kept = [line for line in console.export_text(styles=True, clear=True).splitlines() if "published" not in line]
    picture = Console(record=True, width=100, force_terminal=False, quiet=True)
    for line in kept:
        picture.print(Text.from_ansi(line))
    picture.save_svg(str(TARGET), title="make demo")
    return code


if __name__ == "__main__":
    sys.exit(draw(int(sys.argv[1]) if len(sys.argv) > 1 else None))
