from collections.abc import Iterator

import pytest

from streams.settings import Settings
from tests.worker.kit import Gate, Rig


@pytest.fixture
def rig(settings: Settings) -> Iterator[Rig]:
    with Rig(settings) as rig:
        yield rig


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()
