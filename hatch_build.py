"""Build hook: a wheel holds the browser half, built from its sources as the wheel is."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class UiHook(BuildHookInterface[Any]):
    """An editable install builds nothing: `make ui` does, when somebody wants the pages."""

    def dependencies(self) -> list[str]:
        ui = _builder(self.root)
        return [] if ui is None else list(ui.wanted(os.environ.get("PATH", "")))

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        ui = _builder(self.root)
        if self.target_name != "wheel" or version == "editable" or ui is None or ui.fresh(ui.ROOT):
            return
        node = ui.find_node(os.environ.get("PATH", ""), ui.wheel_packages())
        if node is None:
            raise SystemExit(ui.NONE)
        try:
            ui.build(ui.ROOT, node, os.environ)
        except ui.BuildError as error:
            raise SystemExit(str(error)) from None


def _builder(root: str) -> Any:
    """`ui/build.py` as a module; None where the sources of the UI are not: then what was built before is taken."""
    path = Path(root) / "ui" / "build.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("pstp_ui_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
