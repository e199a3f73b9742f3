"""Writes the dashboards' JSON: `python deploy/grafana/build.py`.  A test fails when it is out of date.

What they show is in panels.py; here is how Grafana wants it said.
"""

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from panels import BOARDS, Board, Panel  # noqa: E402

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS, HEIGHTS = 24, {"stat": 4, "timeseries": 8}
EMPTY = "nothing yet"


def board_json(board: Board) -> str:
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.text)
        .tags(["pstp"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_boards_link())
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("cluster", "Cluster", "label_values(pstp_build_info, cluster)"))
        .with_variable(
            _variable("instance", "Instance", 'label_values(pstp_build_info{cluster=~"$cluster"}, instance)')
        )
        .with_variable(
            dashboard.TextBoxVariable("web")
            .label("Web UI")
            .default_value("http://127.0.0.1:8080")
            .description("Where links of panels lead to")
        )
    )
    x = y = 0
    for number, panel in enumerate(board.panels, start=1):
        if x + panel.width > COLUMNS or (x and board.panels[number - 2].kind != panel.kind):
            x, y = 0, y + HEIGHTS[board.panels[number - 2].kind]
        built = built.with_panel(_panel(panel, number, x, y))
        x += panel.width
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _variable(name: str, label: str, query: str) -> Any:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all", selected=True))
    )


def _boards_link() -> Any:
    return (
        dashboard.DashboardLink("Questions").type("dashboards").tags(["pstp"]).as_dropdown(True).keep_time(True)
        .include_vars(True)
    )  # fmt: skip


def _panel(panel: Panel, number: int, x: int, y: int) -> Any:
    height = HEIGHTS[panel.kind]
    if panel.kind == "stat":
        made: Any = stat.Panel().graph_mode(BigValueGraphMode.AREA)
    else:
        made = (
            timeseries.Panel()
            .legend(
                common.VizLegendOptions()
                .display_mode(LegendDisplayMode.LIST)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
            )
            .fill_opacity(8)
        )
    made = (
        made.title(panel.title)
        .id(number)
        .description(panel.text)
        .unit(panel.unit)
        .min(0)
        .no_value(EMPTY)
        .datasource(SOURCE)
        .grid_pos(GridPos(x=x, y=y, w=panel.width, h=height))
        .links(
            [dashboard.DashboardLink("Open in the web UI").type("link").url(f"${{web}}{panel.link}").target_blank(True)]
        )
        .thresholds(_thresholds(panel))
    )
    for index, query in enumerate(panel.queries):
        made = made.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend or "__auto")
            .ref_id(chr(ord("A") + index))
            .datasource(SOURCE)
        )
    return made


def _thresholds(panel: Panel) -> Any:
    steps = [Threshold(value=None, color="green")]
    if panel.bad_above is not None:
        steps.append(Threshold(value=panel.bad_above, color="red"))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def pages() -> dict[Path, str]:
    return {HERE / "dashboards" / f"{board.uid}.json": board_json(board) for board in BOARDS}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
