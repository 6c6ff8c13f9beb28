"""What the models share: making a message, and reading the end of a range."""

from p4xos.effects import To
from p4xos.wire import VERSION, Message, Type

Answers = list[tuple[To, Message]]
"""What one message is answered with, in order; empty is silence."""


def reply(
    cluster: int,
    group: int,
    type: Type,
    *,
    instance: int = 0,
    round: int = 0,
    vround: int = 0,
    sender: int = 0,
    incarnation: int = 0,
    low: int = 0,
    value: bytes = b"",
) -> Message:
    """A message with its length filled in; what is not given is 0."""
    return Message(
        version=VERSION,
        type=type.value,
        group=group,
        cluster=cluster,
        instance=instance,
        round=round,
        vround=vround,
        sender=sender,
        length=len(value),
        incarnation=incarnation,
        low=low,
        value=value,
    )


def end_of_range(message: Message) -> int | None:
    """The u64 exclusive end in a PHASE1A or LEARN; None when it is no u64, or before the first."""
    if len(message.value) != 8:
        return None
    end = int.from_bytes(message.value, "big")
    return end if end >= message.instance else None
