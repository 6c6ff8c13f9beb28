"""The coordinator's data plane: model, scalar path and numpy path agree on random requests."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import wire
from p4xos.quorum import NO_ROUND
from p4xos.roles.sequencer import Sequencer
from p4xos.testing.model import ModelSequencer
from p4xos.testing.model.messages import reply
from p4xos.wire import Frame, Message, Type
from tests.roles.traffic import CLUSTER, GROUP, SENDERS, VALUE_BYTES, VALUES, WINDOW, sent_messages

ID = 1


@st.composite
def batches(draw: st.DrawFn) -> list[Message]:
    """Mostly requests; fields that a request does not use hold anything."""
    types = st.sampled_from([Type.REQUEST] * 30 + list(Type))
    sizes = st.one_of(st.integers(min_value=1, max_value=4), st.just(WINDOW + 3))
    junk = draw(st.sampled_from([0, 0, 5]))
    return [
        reply(CLUSTER, GROUP, draw(types), instance=junk, round=junk, vround=junk,
              sender=draw(SENDERS), incarnation=junk, low=junk, value=draw(VALUES))
        for _ in range(draw(sizes))
    ]  # fmt: skip


class Serve(tuple[int, int]):
    """The controller writes a round, and low and next so many instances after the present next."""


class Raise(int):
    """The controller moves low up to so many instances below next."""


SERVES = st.tuples(st.sampled_from([NO_ROUND, 1 << 8, 2 << 8 | 1, 2**32 - 1]), st.integers(0, 5))
STEPS = st.lists(
    st.one_of(batches(), batches(), SERVES.map(Serve), st.integers(0, WINDOW).map(Raise)),
    min_size=3,
    max_size=12,
)


def test_model_scalar_and_numpy_sequencers_agree() -> None:
    """docs/PROTOCOL.md, section 4: same requests, same PHASE2A, same registers, same counts."""
    happened: Counter[str] = Counter()

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(steps=STEPS)
    def agree(steps: list[list[Message] | Serve | Raise]) -> None:
        model = ModelSequencer(
            ID, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER, group=GROUP
        )
        roles = {
            path: Sequencer(
                frame=Frame(CLUSTER, GROUP, ID),
                window=WINDOW,
                value_bytes=VALUE_BYTES,
                scalar_below=scalar_below,
            )
            for path, scalar_below in (("scalar", 1 << 30), ("numpy", 0))
        }
        for step in [Serve((1 << 8, 0)), *steps]:
            if isinstance(step, Serve):
                round, ahead = step
                model.serve(round, next=model.next + ahead, low=model.next + ahead)
            elif isinstance(step, Raise):
                model.raise_low(model.next - step)
            if isinstance(step, Serve | Raise):
                for role in roles.values():
                    role.round, role.next, role.low = model.round, model.next, model.low
                continue
            answers = [answer for message in step for answer in model.receive(message)]
            model.check_invariants()
            for path, role in roles.items():
                effects = role.step(wire.from_messages(step), now=0.0)
                role.check_invariants()
                assert effects.persist == []
                assert effects.deliver == []
                assert sent_messages(effects.send) == answers, path
                assert (role.round, role.next, role.low) == (model.round, model.next, model.low)
                drops = {name: count for name, count in role.counters.items() if name != "proposed"}
                assert drops == {name: model.dropped[name] for name in drops}
        happened.update(roles["numpy"].counters)

    agree()
    assert all(happened[name] > 20 for name in happened), happened
