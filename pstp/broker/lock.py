"""The pinned jars of the embedded broker: jars.lock, one `group:artifact:version sha256` a line.

To move to another Kafka, change KAFKA_VERSION (and LOG4J_VERSION to the log4j-core that this Kafka brings) and run,
on a machine with Maven:

    python -m pstp.broker.lock

That lets Maven resolve the runtime dependencies, hashes every jar and writes jars.lock anew.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KAFKA_VERSION = "4.4.0"
LOG4J_VERSION = "2.25.5"
LOCK_PATH = Path(__file__).with_name("jars.lock")

_ROOTS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    # Kafka 4 speaks SLF4J 1.7, so this is the binding without the 2 in its name.
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
)
_POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>pstp</groupId><artifactId>broker</artifactId><version>1</version><dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
_HEADER = "# Jars of the embedded broker. Written by `python -m pstp.broker.lock`; do not edit by hand.\n"


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar; sha256 is 64 lower-case hex digits."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def read_lock(path: Path = LOCK_PATH) -> list[Jar]:
    """All pinned jars, in the order of the file; comments (#) and blank lines are skipped."""
    jars = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def regenerate(path: Path = LOCK_PATH) -> int:
    """Resolve with Maven, write the lock file and return the number of jars; raises if Maven is absent or fails."""
    maven = shutil.which("mvn")
    if maven is None:
        raise FileNotFoundError("Maven (mvn) is not on the PATH: install it, it is needed only to make jars.lock.")
    with tempfile.TemporaryDirectory() as folder:
        pom = Path(folder, "pom.xml")
        pom.write_text(_POM.format("".join(_DEPENDENCY.format(*root) for root in _ROOTS)), encoding="utf-8")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true"]
        subprocess.run([maven, "-B", "-q", "-f", str(pom), *goal, f"-DoutputDirectory={folder}/jars"], check=True)
        lines = sorted(_lock_line(Path(folder, "jars"), jar) for jar in Path(folder, "jars").rglob("*.jar"))
    path.write_text(_HEADER + "".join(lines), encoding="utf-8")
    return len(lines)


def _lock_line(repository: Path, jar: Path) -> str:
    *group, artifact, version, _file_name = jar.relative_to(repository).parts
    return f"{'.'.join(group)}:{artifact}:{version} {sha256_of(jar)}\n"


if __name__ == "__main__":
    sys.stdout.write(f"{regenerate()} jars pinned in {LOCK_PATH.name}\n")
