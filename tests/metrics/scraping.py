"""Reads /metrics as Prometheus does: addresses come from the files that processes write."""

import json
import urllib.request
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


def addresses(folder: Path) -> dict[str, str]:
    """Of all processes with that data folder, by instance."""
    found = {}
    for path in (folder / "targets").glob("*.json"):
        (group,) = json.loads(path.read_text())
        found[group["labels"]["instance"]] = f"http://{group['targets'][0]}/metrics"
    return found


def scrape_all(folder: Path) -> dict[str, str]:
    """What each says, by instance."""
    found = {}
    for instance, address in addresses(folder).items():
        with urllib.request.urlopen(address, timeout=10) as answer:
            found[instance] = answer.read().decode()
    return found


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def figure(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
