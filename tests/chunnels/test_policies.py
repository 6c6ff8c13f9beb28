"""The operator's policy for programs that are given none: by a name in the environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from p4xos.chunnels import Runtime, endpoint, local_or_remote, reliable
from p4xos.chunnels.choosing import Candidate, default_policy
from p4xos.chunnels.policies import POLICY_VARIABLE
from p4xos.cli import main
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME
from tests.chunnels.messages import ANYWHERE, echo, patiently

NO_FUNCTION = 3


def no_shared_memory(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    return [each for each in default_policy(candidates) if each.name != "memory"]


async def test_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POLICY_VARIABLE, f"{__name__}:no_shared_memory")
    runtime = Runtime()
    assert runtime.policy is no_shared_memory
    stack = reliable() | local_or_remote()
    async with (
        patiently(),
        endpoint("kv", stack, runtime=runtime).serving(echo, ANYWHERE) as address,
        endpoint("c", stack, runtime=runtime).connect(address) as connection,
    ):
        assert connection.explain().implementation("transport") == "unix"
        assert "not memory (both ends): the policy forbids it" in str(connection.explain())
    assert Runtime(policy=default_policy).policy is default_policy


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("nothing", "no MODULE:FUNCTION"),
        ("no.such.module:rule", "ModuleNotFoundError"),
        (f"{__name__}:no_such_rule", "AttributeError"),
        (f"{__name__}:NO_FUNCTION", "NO_FUNCTION is no function"),
    ],
)
def test_one_that_is_none_is_told(
    named: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv(POLICY_VARIABLE, named)
    with pytest.raises(ValueError, match=why):
        Runtime()
    file = tmp_path / CLUSTER_NAME
    file.write_text(Cluster.template(1, 7101, "memory").to_toml())
    words = ["role", "acceptor", "0", "--cluster", str(file)]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{POLICY_VARIABLE}={named}: " in told
    assert "name a function" in told
