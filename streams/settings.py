"""One frozen `Settings`: environment `PSTP_…`, a `.env` file, and `PSTP_…_FILE` for secrets."""

import os
import re
import socket
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams import limits
from streams.protocol import FailurePolicy

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
TOPIC_NAMES = (
    "tasks", "commands", "completions", "dispatches", "control", "members", "task-events", "dead-letters",
)  # fmt: skip
TopicName = Literal[
    "tasks", "commands", "completions", "dispatches", "control", "members", "task-events", "dead-letters", "changelog"
]


class Settings(BaseSettings):
    """What an operator may set.  Raises pydantic's `ValidationError` on a value that makes no sense."""

    model_config = SettingsConfigDict(env_prefix="PSTP_", env_file=".env", extra="ignore", frozen=True)

    app: str = Field("pstp", description="prefix of groups, transactional ids and topics; `pstp` keeps plain topics")
    instance: str = Field("", description="name of this process; survives restarts, unique among the running ones")
    bootstrap_servers: str = "127.0.0.1:9092"
    partitions: int = Field(8, ge=1, le=1024, description="N: of tasks, commands, completions, task-events, changelog")
    dispatch_partitions: int = Field(16, ge=1, le=1024, description="M: at least as many as workers")
    replication_factor: int = Field(1, ge=1, le=7)
    retention_hours: int = Field(168, ge=1, description="of tasks and task-events")

    security_protocol: str = ""
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_location: str = ""
    ssl_certificate_location: str = ""
    ssl_key_location: str = ""
    ssl_key_password: SecretStr = SecretStr("")

    task_bytes_max: int = Field(limits.TASK_BYTES_MAX, ge=1024, le=limits.TASK_BYTES_MAX)
    lease_s: float = Field(limits.LEASE_S, ge=1.0, le=3600)
    max_attempts: int = Field(limits.MAX_ATTEMPTS, ge=1)
    on_failure: FailurePolicy = Field(FailurePolicy.SKIP, description="skip, block or cascade, when attempts are spent")
    group_policies: dict[str, FailurePolicy] = Field(
        default_factory=dict, description='by group, as in {"customer-*": "block"}; the first pattern that fits counts'
    )
    breaker_rate: float = Field(0.0, ge=0, le=1, description="part of failures that opens a type's breaker; 0: none")
    breaker_window: int = Field(20, ge=1, le=10_000, description="latest executions of a type that count for it")
    breaker_open_s: float = Field(30.0, gt=0, description="how long an open breaker waits before it lets one probe out")
    group_parked_max: int = Field(0, ge=0, description="tasks parked in one group; 0: no limit")
    partition_tasks_max: int = Field(0, ge=0, description="tasks that wait in one partition; 0: no limit")
    when_full: Literal["dead_letter", "pause"] = Field("dead_letter", description="beyond these: the newest, or intake")
    idempotency_window_s: float = Field(limits.IDEMPOTENCY_WINDOW_S, gt=0, le=limits.DELAY_S_MAX)
    secrets: tuple[str, ...] = Field((), description="texts masked in errors, a JSON list; passwords set here are too")
    run_ms: int = Field(
        limits.RUN_MS, ge=0, le=limits.RUN_MS_MAX,
        description="work that a group with a backlog sends out at once while its handlers are quick; 0: task by task",
    )  # fmt: skip
    slots: int = Field(64, ge=1, le=10_000, description="tasks that one worker runs at once")
    local_slots: int = Field(1000, ge=1, le=100_000, description="tasks that `pstp run` runs at once")
    drain_s: float = Field(10.0, ge=0, description="time that running tasks have to end after SIGTERM")
    http: str = Field("127.0.0.1:0", description="host:port of the read-only HTTP server; port 0 takes a free one")
    data_dir: Path = Path(".pstp")
    log_format: Literal["auto", "text", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("app", "instance")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if value and not NAME.match(value):
            raise ValueError("use 1 to 64 letters, digits, '-' and '_'")
        return value

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in cls.model_fields:
            path = os.environ.get(f"PSTP_{name.upper()}_FILE")
            if path and name not in values:
                values[name] = Path(path).read_text(encoding="utf-8").strip()
        return values

    @property
    def silence_s(self) -> float:
        """After how much silence a worker gives up what it runs, and a scheduler takes it for lost: see `limits`."""
        return self.lease_s + limits.GRACE_S

    def topic(self, name: TopicName) -> str:
        """The topic's name in the cluster."""
        if name == "changelog":
            return f"{self.app}-groups-changelog"
        return name if self.app == "pstp" else f"{self.app}-{name}"

    @property
    def scheduler_group(self) -> str:
        return f"{self.app}-schedulers"

    @property
    def worker_group(self) -> str:
        return f"{self.app}-workers"

    def transactional_id(self, instance: str) -> str:
        return f"{self.app}-{instance}"

    def kafka(self, **more: Any) -> dict[str, Any]:
        """librdkafka configuration of every client: where the cluster is and how to log in."""
        conf: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "enable.metrics.push": False,
            # A restart of the whole cluster must not make clients forget who coordinates their group.
            "metadata.recovery.strategy": "none",
            "reconnect.backoff.max.ms": 1000,
        }
        for field in ("security_protocol", "sasl_mechanism", "sasl_username", "ssl_ca_location",
                      "ssl_certificate_location", "ssl_key_location"):  # fmt: skip
            if value := getattr(self, field):
                conf[field.replace("_", ".")] = value
        if password := self.sasl_password.get_secret_value():
            conf["sasl.password"] = password
        if password := self.ssl_key_password.get_secret_value():
            conf["ssl.key.password"] = password
        return conf | more

    def secret_texts(self) -> tuple[str, ...]:
        """What must not be shown in errors and tracebacks."""
        own = (self.sasl_password.get_secret_value(), self.ssl_key_password.get_secret_value())
        return tuple(text for text in (*self.secrets, *own) if text)

    def instance_name(self, role: str, slot: int = 0) -> str:
        """`instance` if set, else made up from role, host and a free slot."""
        host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40]
        return self.instance or f"{role}-{host}-{slot}"
