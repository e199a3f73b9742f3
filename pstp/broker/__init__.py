"""An Apache Kafka broker that PSTP fetches, starts and stops by itself: no installation, no container."""

import sys

if sys.platform == "win32":
    raise ImportError("The embedded broker needs Linux, macOS or WSL: on Windows, use PSTP with a Kafka of your own.")

from pstp.broker.embedded import EmbeddedBroker
from pstp.broker.errors import BrokerError, DataDirInUseError, JarError, JavaError, PortTakenError, StartError
from pstp.broker.settings import Quorum, new_cluster_id

__all__ = [
    "BrokerError",
    "DataDirInUseError",
    "EmbeddedBroker",
    "JarError",
    "JavaError",
    "PortTakenError",
    "Quorum",
    "StartError",
    "new_cluster_id",
]
