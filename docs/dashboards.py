"""Pictures of the Grafana dashboards: `python docs/dashboards.py http://127.0.0.1:9090`.

No Grafana draws them: this lays out the same JSON, asks that Prometheus the same queries over the latest run, and
draws what it answers.  The pictures in docs/dashboards are of a `pstp demo`, scraped each second.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
BOARDS = HERE.parent / "deploy" / "grafana" / "dashboards"
CELL_W, CELL_H, GAP, HEAD = 50, 30, 6, 64
STEP_S = 1
BACK_S = 1800
COLOURS: Final = ("#3266ad", "#c9622f", "#3d8f5f", "#8a56ac", "#b3902f", "#b0445c", "#4a9bb0", "#7a7a7a")
FILL = {"$__rate_interval": "15s", "$__range": "5m", "$cluster": ".*", "$instance": ".*"}
Series = tuple[str, list[tuple[float, float]]]


def get(base: str, expr: str, start_s: float, end_s: float) -> Any:
    query = urllib.parse.urlencode({"query": expr, "start": start_s, "end": end_s, "step": STEP_S})
    with urllib.request.urlopen(f"{base}/api/v1/query_range?{query}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def life(base: str) -> tuple[float, float]:
    """When schedulers were there, lately: the time that is drawn."""
    now_s = time.time()
    found = get(base, "pstp_partitions_owned > 0", now_s - BACK_S, now_s)
    times = [float(at) for series in found for at, _ in series["values"]]
    return min(times), max(times) - 8


def ask(base: str, panel: dict[str, Any], span: tuple[float, float]) -> list[Series]:
    found: list[Series] = []
    for target in panel["targets"]:
        expr = target["expr"]
        for name, value in FILL.items():
            expr = expr.replace(name, value)
        for series in get(base, expr, *span):
            points = [(float(at), float(value)) for at, value in series["values"] if value != "NaN"]
            legend = target["legendFormat"]
            for label, text in series["metric"].items():
                legend = legend.replace("{{" + label + "}}", text)
            if points:
                found.append((re.sub(r"{{.*?}}", "none", legend), points))
    return found


def number(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s":
        if value >= 1:
            return f"{value:,.1f} s"
        return f"{value * 1000:,.0f} ms" if value >= 0.01 or not value else f"{value * 1000:.1f} ms"
    text = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"
    return f"{text}/s" if unit == "ops" else text


def draw_panel(panel: dict[str, Any], found: list[Series], span: tuple[float, float]) -> str:
    at = panel["gridPos"]
    x, y = at["x"] * CELL_W + GAP / 2, at["y"] * CELL_H + HEAD
    w, h = at["w"] * CELL_W - GAP, at["h"] * CELL_H - GAP
    unit = panel["fieldConfig"]["defaults"]["unit"]
    parts = [
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="3" fill="#fff" stroke="#d9dbe0"/>',
        f'<text x="{x + 10}" y="{y + 20}" font-weight="600">{escape(panel["title"])}</text>',
    ]
    if not found:
        parts.append(f'<text x="{x + 10}" y="{y + h / 2}" fill="#888">nothing yet</text>')
    elif panel["type"] == "stat":
        text = " / ".join(number(points[-1][1], unit) for _, points in found[:2])
        parts.append(f'<text x="{x + 10}" y="{y + h - 24}" font-size="32" fill="#1d4f91">{text}</text>')
    else:
        parts += lines(found[:8], x + 62, y + 34, w - 76, h - 84, unit, span)
        parts += legend(found[:8], x + 12, y + h - 30, w - 20)
    return "\n".join(parts)


def lines(
    found: list[Series], x: float, y: float, w: float, h: float, unit: str, span: tuple[float, float]
) -> list[str]:
    first, last = span
    top = max((value for _, points in found for _, value in points), default=0) or 1
    parts = []
    for part in (0, 0.5, 1):
        line_y = y + h - part * h
        parts.append(f'<line x1="{x}" x2="{x + w}" y1="{line_y}" y2="{line_y}" stroke="#eceef1"/>')
        parts.append(
            f'<text x="{x - 6}" y="{line_y + 4}" text-anchor="end" fill="#777">{number(top * part, unit)}</text>'
        )
    for (_, points), colour in zip(found, COLOURS, strict=False):
        path = " ".join(
            f"{x + (at - first) / max(1, last - first) * w:.1f},{y + h - value / top * h:.1f}" for at, value in points
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return parts


def legend(found: list[Series], x: float, y: float, w: float) -> list[str]:
    parts, at_x = [], x
    for (name, _), colour in zip(found, COLOURS, strict=False):
        width = 26 + 6.6 * len(name)
        if at_x + width > x + w:
            at_x, y = x, y + 16
        parts.append(f'<rect x="{at_x}" y="{y - 8}" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{at_x + 14}" y="{y}" fill="#555">{escape(name)}</text>')
        at_x += width
    return parts


def draw(board: dict[str, Any], base: str) -> str:
    height = HEAD + CELL_H * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    width = 24 * CELL_W
    span = life(base)
    panels = "\n".join(draw_panel(panel, ask(base, panel, span), span) for panel in board["panels"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="#f4f5f7"/>\n'
        f'<text x="10" y="28" font-size="20" font-weight="600">{escape(board["title"])}</text>\n'
        f'<text x="10" y="50" fill="#555">{escape(board["description"])}</text>\n{panels}\n</svg>\n'
    )


def main(base: str) -> None:
    folder = HERE / "dashboards"
    folder.mkdir(exist_ok=True)
    for path in sorted(BOARDS.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        (folder / f"{path.stem}.svg").write_text(draw(board, base), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
