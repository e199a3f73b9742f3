"""Draws the README's picture from what a demo printed: `make demo | tee demo.log; python docs/picture.py demo.log`."""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).parent / "demo.svg"
FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich names a font on the net; the reader's own will do


def draw(log: Path) -> None:
    """Everything but the progress lines and what `make` and the shell said."""
    console = Console(record=True, width=96, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in log.read_text(encoding="utf-8").splitlines():
        if "published " in line or line.startswith(("make", ".venv", "real", "user", "sys")):
            continue
        text = Text.from_ansi(line)
        text.highlight_regex(r"✓", "bold green")
        text.highlight_regex(r"kill -9 \S+", "bold red")
        console.print(text, no_wrap=True)
    console.save_svg(str(TARGET), title="make demo")
    TARGET.write_text(FONT_FACES.sub("", TARGET.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
