"""The model of takeover and recovery, checked by spin (docs/PROTOCOL.md, sections 3 to 5, 10).

Every state of a small cluster is visited: no seed, no chance. The same program with one rule left
out must break an invariant, and must reach what the model claims to be about. `make model` checks
larger clusters too, which takes minutes.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("paxos.pml")
LONG = "LONG_MODELS" in os.environ
TIMEOUT_S = 7200 if LONG else 600
"""Only turns a hang into a failure."""
DEPTH_MAX = 100_000

MUTATIONS = (
    "STALE_VOTE", "STALE_PROMISE", "PROMISE_NOT_KEPT", "SLOT_PROMISE_NOT_KEPT",
    "SLOT_PROMISE_IGNORED", "FLOOR_IGNORED", "REPEAT_LOWERS_PROMISE", "PROMISES_LOST_IN_CRASH",
    "VOTES_LOST_IN_CRASH", "QUORUM_OF_ONE", "LAST_REPORT_WINS", "NO_OP_DESPITE_HIGHER_PROMISE",
    "SERVES_FROM_LOW", "ANSWER_OF_EARLIER_ROUND", "ROUND_REUSED", "RECOVERY_WITHOUT_PHASE_1",
    "RECOVERY_IN_MAIN_ROUND", "RECOVERY_ROUND_REUSED", "RECOVERY_QUORUM_OF_ONE",
    "RECOVERY_IGNORES_VOTES", "VOTES_OF_TWO_ROUNDS_CHOOSE",
)  # fmt: skip
MUTATIONS_OF_REPORTS = ("SUMMARY_SUFFICES", "COUNT_DESPITE_CHUNKS")
CLAIMS = (
    "CHOSEN", "CHOSEN_IN_TWO_ROUNDS", "NO_OP_CHOSEN", "INSTANCE_LEFT_OUT", "LEFT_OUT_CHOSEN_LATER",
    "VALUE_RECOVERED", "DEPOSED_GOES_ON",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None,
    reason="spin and gcc check the model; on Debian: apt-get install spin gcc",
)


@dataclass(frozen=True)
class Found:
    """What one search came to."""

    errors: int
    states: int
    exhaustive: bool
    violated: str


class Search:
    """A compiled search; each run may leave out a rule or make a claim."""

    def __init__(self, directory: Path, *definitions: str) -> None:
        self._directory = directory
        flags = [f"-D{definition}" for definition in definitions]
        self._call(["spin", *flags, "-a", str(MODEL)])
        self._call(["gcc", "-O1", "-DSAFETY", "-DNOFAIR", "-DNOREDUCE", "-DMEMLIM=12000",
                    "-o", "pan", "pan.c"])  # fmt: skip

    def run(self, **settings: int) -> Found:
        """Searches all states, or up to the first error; MUTATION or CLAIM set one."""
        environment = os.environ | {name: str(number) for name, number in settings.items()}
        output = self._call(["./pan", "-E", f"-m{DEPTH_MAX}"], environment)
        errors = re.search(r"errors: (\d+)", output)
        states = re.search(r"(\d+) states, stored", output)
        assert errors is not None, output
        assert states is not None, output
        violated = re.search(r"assertion violated (.*)", output)
        return Found(
            errors=int(errors[1]),
            states=int(states[1]),
            exhaustive="not completed" not in output and "too small" not in output,
            violated=violated[1] if violated else "",
        )

    def _call(self, command: list[str], environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command, cwd=self._directory, env=environment, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def number_of(name: str) -> int:
    """A rule's or claim's number in the model."""
    found = re.search(rf"^#define {name} (\d+)$", MODEL.read_text(), re.MULTILINE)
    assert found is not None, f"{name} is not in {MODEL.name}"
    return int(found[1])


def safe(found: Found) -> None:
    print(f"{found.states} states")
    assert found.violated == ""
    assert found.errors == 0
    assert found.exhaustive


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return Search(tmp_path_factory.mktemp("spin"), "ROUNDS=4", "INSTANCES=1")


@pytest.fixture(scope="module")
def search_of_reports(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return Search(tmp_path_factory.mktemp("spin"), "ROUNDS=3", "INSTANCES=2", "REPORTS")


def test_all_states_keep_the_invariants(search: Search) -> None:
    """Section 10: agreement, validity, one value a round."""
    found = search.run()
    safe(found)
    assert found.states > 100_000, "so few states are no search"


@pytest.mark.parametrize("name", MUTATIONS)
def test_without_a_rule_an_invariant_breaks(search: Search, name: str) -> None:
    found = search.run(MUTATION=number_of(name))
    assert found.errors == 1
    assert re.search("chosen|proposed", found.violated), found
    assert "claim" not in found.violated


@pytest.mark.parametrize("name", CLAIMS)
def test_what_the_model_is_about_happens_in_it(search: Search, name: str) -> None:
    found = search.run(CLAIM=number_of(name))
    assert found.errors == 1
    assert "claim" in found.violated


def test_every_rule_of_the_model_is_left_out_once() -> None:
    """A mutation added there is run here."""
    named = re.findall(r"MUTATED\(([A-Z_0-9]+)\)", MODEL.read_text())
    assert set(named) == set(MUTATIONS + MUTATIONS_OF_REPORTS)
    claimed = re.findall(r"claim [!=]= ([A-Z_]+)", MODEL.read_text())
    assert set(claimed) == set(CLAIMS)


if LONG:  # minutes: `make model`

    @pytest.mark.parametrize("name", MUTATIONS_OF_REPORTS)
    def test_without_a_rule_of_reports_an_invariant_breaks(
        search_of_reports: Search, name: str
    ) -> None:
        found = search_of_reports.run(MUTATION=number_of(name))
        assert found.errors == 1
        assert "chosen" in found.violated

    @pytest.mark.parametrize(
        "definitions", [("ROUNDS=3", "INSTANCES=2"), ("ROUNDS=5", "INSTANCES=1")], ids="-".join
    )
    def test_larger_clusters_keep_the_invariants(
        tmp_path: Path, definitions: tuple[str, ...]
    ) -> None:
        safe(Search(tmp_path, *definitions).run())
