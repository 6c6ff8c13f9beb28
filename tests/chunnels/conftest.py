"""What all tests of Chunnels have."""

from __future__ import annotations

import pytest

from p4xos.chunnels.endpoints import Endpoint
from tests.chunnels.messages import PATIENCE_S


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect that says nothing of time waits as long as the test: machines may be busy."""
    defaults = Endpoint.connect.__kwdefaults__
    assert defaults is not None
    assert "timeout" in defaults
    monkeypatch.setitem(defaults, "timeout", PATIENCE_S)
