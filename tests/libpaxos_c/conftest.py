from __future__ import annotations

from pathlib import Path

import pytest

from tests.libpaxos_c.building import build


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are, under ASan and UBSan."""
    return build(tmp_path_factory.mktemp("libpaxos"), sanitize=True)
