"""Every data plane that there is, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from switch.bmv2.plane import Bmv2Plane
from switch.control.backend import DataPlane
from switch.control.numpy_plane import NumpyPlane
from switch.control.p4_plane import P4Plane
from tests.switch.bmv2.fake_switch import FakeBmv2
from tests.switch.bmv2.needed import why_not
from tests.switch.kernel import ReusedXdpPlane, missing

MakePlane = Callable[[], DataPlane]
SWITCHES = [
    "p4", "pretended bmv2", *(["bmv2"] if why_not() is None else []),
    *([] if missing() else ["xdp"]),
]  # fmt: skip
"""Of those that are not here tests/switch/bmv2/test_real.py and tests/switch/xdp tell."""
EXAMPLES = 80
"""Of random traffic, on each kind that is no pretence."""


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """Of random traffic: less for what is only pretended, as an interpreter is behind it."""
    return EXAMPLES // 16 if "pretended" in request.node.name else EXAMPLES


@pytest.fixture(scope="module")
def make(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakePlane]:
    """What makes planes of the kind that the test is asked for; none of them outlives it."""
    kind: str = request.param
    if kind in ("numpy", "p4"):
        yield NumpyPlane if kind == "numpy" else P4Plane
        return
    if kind == "xdp":
        yield ReusedXdpPlane
        return
    started: Callable[[], Bmv2Plane]
    if kind == "bmv2":
        started = Bmv2Plane
    else:
        fake = FakeBmv2(tmp_path_factory.mktemp("bmv2"))
        started = partial(Bmv2Plane, fake.compile, fake.start)
    made: list[Bmv2Plane] = []

    def make_one() -> Bmv2Plane:
        for each in made:
            each.teardown()
        made.append(started())
        return made[-1]

    yield make_one
    for each in made:
        each.teardown()
