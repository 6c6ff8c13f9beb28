"""The detector of leaks, on series that are made up: what grows is found, what does not is not."""

from __future__ import annotations

import random

import pytest

from bench.soak.cli import main
from bench.soak.samples import Sample
from bench.soak.soaking import BOUNDS, MEBIBYTE, Report, fitted, stale_lows, summary

MINUTES = 15
EVERY_S = 2.0
WINDOW = 100
TIMES = [EVERY_S * n for n in range(int(MINUTES * 60 / EVERY_S))]


def sample(at_s: float, **changed: int) -> Sample:
    plain = Sample(
        at_s, "n1", 7, rss_bytes=100 * MEBIBYTE, descriptors=40, clients=5, data_descriptors=9,
        threads=12, data_bytes=1, segments=2, delivered=round(1000 * at_s), lag=0, low=1,
        in_flight=0, dropped={}, socket_drops=0,
    )  # fmt: skip
    return plain._replace(**changed)  # type: ignore[arg-type]  # only numbers are changed


def leaking(samples: list[Sample]) -> set[str]:
    return {
        line.name for line in fitted(samples, WINDOW) if line.trend is not None and line.trend.leaks
    }


def noise(chance: random.Random, size: float) -> int:
    return round(chance.gauss(0, size))


@pytest.mark.parametrize("seed", range(20))
def test_memory_that_grows_is_found_in_its_noise(seed: int) -> None:
    chance = random.Random(seed)
    per_s = 3 * BOUNDS["rss_bytes"].per_hour / 3600
    grown = [100 * MEBIBYTE + round(per_s * t) + noise(chance, MEBIBYTE) for t in TIMES]
    assert leaking([sample(t, rss_bytes=b) for t, b in zip(TIMES, grown, strict=True)]) == {
        "rss_bytes"
    }


@pytest.mark.parametrize("seed", range(20))
def test_a_descriptor_lost_every_two_minutes_is_found(seed: int) -> None:
    chance = random.Random(seed)
    held = [40 + int(t // 120) + chance.randrange(4) for t in TIMES]
    samples = [sample(t, descriptors=n) for t, n in zip(TIMES, held, strict=True)]
    assert leaking(samples) == {"descriptors"}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_steady_passes(seed: int) -> None:
    """Noise, warm-up in the first half, and a saw-tooth: none of them is a leak."""
    chance = random.Random(seed)
    samples = []
    for t in TIMES:
        warm = round(80 * MEBIBYTE * min(t / 300, 1.0))
        tooth = round(8 * MEBIBYTE * (t % 60) / 60)
        samples.append(
            sample(
                t,
                rss_bytes=100 * MEBIBYTE + warm + tooth + noise(chance, 2 * MEBIBYTE),
                descriptors=40 + chance.randrange(12),
                threads=12 + chance.randrange(3),
            )
        )
    assert leaking(samples) == set()


def test_one_step_is_no_trend() -> None:
    """An allocation that comes once and stays."""
    two_thirds = TIMES[-1] * 2 / 3
    steps = [100 * MEBIBYTE + (t > two_thirds) * 4 * MEBIBYTE for t in TIMES]
    assert leaking([sample(t, rss_bytes=b) for t, b in zip(TIMES, steps, strict=True)]) == set()


def test_a_short_series_says_nothing() -> None:
    samples = [sample(t, rss_bytes=int(1e6 * t)) for t in TIMES[:30]]
    assert all(line.trend is None for line in fitted(samples, WINDOW))
    assert "too short" in summary(Report(fitted(samples, WINDOW), [], {}))


def test_memory_that_grows_until_the_rings_are_full_is_no_leak() -> None:
    """Up to nine tenths of the run: what comes behind is too short for a verdict."""
    full = 0.9 * TIMES[-1]
    held = [100 * MEBIBYTE + round(1e6 * min(t, full)) for t in TIMES]
    samples = [
        sample(t, rss_bytes=b, delivered=round(t * WINDOW / full))
        for t, b in zip(TIMES, held, strict=True)
    ]
    assert leaking(samples) == set()


def test_a_new_process_is_a_series_of_its_own() -> None:
    samples = [sample(t, pid=1 + (t > TIMES[-1] / 2), rss_bytes=int(1e9 if t > 450 else 1e8))
               for t in TIMES]  # fmt: skip
    assert {(line.node, line.pid) for line in fitted(samples, WINDOW)} == {("n1", 1), ("n1", 2)}
    assert leaking(samples) == set()


@pytest.mark.parametrize(("low_moves", "found"), [(True, 0), (False, 1)])
def test_a_low_that_stands_still_is_found(low_moves: bool, found: int) -> None:
    samples = [
        sample(t, delivered=round(1000 * t), low=round(1000 * t) if low_moves else 1) for t in TIMES
    ]
    assert len(stale_lows(samples, WINDOW)) == found


def test_the_verdict_is_told() -> None:
    assert summary(Report([], [], {"restarts": 2})).endswith("restarts: 2\nPASS")
    assert summary(Report([], ["node n1: grows"], {})).endswith("FAIL: node n1: grows")


@pytest.mark.parametrize("flags", [["--minutes", "0"], ["--nodes", "1"]])
def test_misuse(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert flags[0] in capsys.readouterr().err
