"""Metric families as the catalogue describes them."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version as package_version

import confluent_kafka as ck
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from streams.catalogue import METRICS
from streams.distribution import Distribution

# (labels' values, number)
Samples = Iterable[tuple[tuple[str, ...], float]]


def counter(name: str, samples: Samples) -> Metric:
    family = CounterMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def gauge(name: str, samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def histogram(name: str, distributions: Mapping[tuple[str, ...], Distribution]) -> Metric:
    family = HistogramMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labels, distribution in distributions.items():
        family.add_metric(labels, distribution.buckets(), distribution.total)
    return family


def build_info(role: str) -> Metric:
    family = InfoMetricFamily("pstp_build", METRICS["pstp_build"].help, labels=())
    family.add_metric((), {
        "version": package_version("pstp"), "confluent_kafka": str(ck.__version__),
        "librdkafka": str(ck.libversion()[0]), "python": platform.python_version(), "role": role,
    })  # fmt: skip
    return family
