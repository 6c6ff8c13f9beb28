"""The learner's records: what is unpacked is what was packed, types and all."""

import msgpack

from p4xos import checkpointed


def test_pieces_come_back_as_they_were() -> None:
    key, pieces = (7, 3, 0), [(0, b"one"), (2, b"three")]
    records = {
        checkpointed.TABLE: msgpack.packb([[], []]),
        checkpointed._PIECES.pack(checkpointed._MARK, *key): msgpack.packb(pieces),
    }
    assert checkpointed.unpack(records) == ([[], []], {key: pieces})
