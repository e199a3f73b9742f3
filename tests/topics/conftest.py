"""Settings that a test may vary."""

import uuid
from collections.abc import Callable

import pytest

from streams.settings import Settings


@pytest.fixture
def make_settings(bootstrap: str) -> Callable[..., Settings]:
    """Settings of one new app; each call may vary them."""
    app = f"t{uuid.uuid4().hex[:10]}"

    def make(**more: object) -> Settings:
        defaults = {"app": app, "bootstrap_servers": bootstrap, "partitions": 2, "dispatch_partitions": 2}
        return Settings.model_validate(defaults | more)

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()
