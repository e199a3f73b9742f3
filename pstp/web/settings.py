"""What an operator may set for `pstp web`: environment `PSTP_WEB_…` or `.env`."""

from pathlib import Path
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.errors import UserError

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class WebSettings(BaseSettings):
    """Raises pydantic's `ValidationError` on a value that makes no sense."""

    model_config = SettingsConfigDict(env_prefix="PSTP_WEB_", env_file=".env", extra="ignore", frozen=True)

    address: str = Field("127.0.0.1:8080", description="host:port to listen on; port 0 takes a free one")
    database: str = Field("", description="SQLAlchemy address of the read model; default: SQLite in PSTP_DATA_DIR")
    keys: Path | None = Field(None, description="file of API keys, made by `pstp web-key`; without: loopback only")
    hosts: tuple[str, ...] = Field((), description="further names by which browsers may call it, a JSON list")
    secure_cookie: bool = Field(False, description="behind TLS: the session's cookie is for https alone")
    mask: tuple[str, ...] = Field(
        (), description='members hidden in payloads, results and group state, as in ["card.number", "**.password"]'
    )
    retention_hours: int = Field(168, ge=1, description="how long tasks that have ended are kept")
    tasks_max: int = Field(2_000_000, ge=1000, description="tasks kept at most; the oldest that have ended go first")
    text_max: int = Field(65_536, ge=256, description="characters of a payload or result shown; the rest by download")
    clients_max: int = Field(500, ge=1, description="browsers that may stream at once")

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("use host:port, such as 127.0.0.1:8080")
        return value

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def refuse_open_door(self) -> None:
        """Raises `UserError` if others could reach it and nobody would ask them who they are."""
        if self.host not in LOOPBACK and self.keys is None:
            raise UserError(
                f"PSTP_WEB_ADDRESS {self.address} is open to other machines and no API keys are set: make one with "
                "`pstp web-key NAME --role admin --file keys.json` and set PSTP_WEB_KEYS=keys.json, or listen on "
                "127.0.0.1"
            )

    def database_url(self, data_dir: Path) -> str:
        return self.database or f"sqlite:///{(data_dir / 'web.sqlite').absolute()}"
