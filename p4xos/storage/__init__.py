"""Durable state of acceptors and coordinators (docs/PROTOCOL.md, sections 3, 4 and 8).

Modules, from the bottom up:

    disk       what storage needs of a file system, and its error
    frames     the bytes of a log (pure)
    retention  what a log must keep (pure)
    directory  an acceptor's directory: names, lock, the mark of a new acceptor
    recovery   reading a log: what survived, or why not
    log        AcceptorLog: append, roll
    memory     AcceptorStorage, the Protocol; MemoryStorage, which keeps nothing
    joining    the storage of an acceptor that forgot, and joins again
    rounds     RoundFile: the coordinator's last round
"""

from p4xos.storage.directory import Forgetful, create_mark
from p4xos.storage.disk import Disk, RealDisk, StorageError
from p4xos.storage.joining import StorageOfJoined, set_aside
from p4xos.storage.log import SEGMENT_BYTES, AcceptorLog, Restored
from p4xos.storage.memory import AcceptorStorage, MemoryStorage
from p4xos.storage.recovery import Cut
from p4xos.storage.rounds import RoundFile

__all__ = [
    "SEGMENT_BYTES",
    "AcceptorLog",
    "AcceptorStorage",
    "Cut",
    "Disk",
    "Forgetful",
    "MemoryStorage",
    "RealDisk",
    "Restored",
    "RoundFile",
    "StorageError",
    "StorageOfJoined",
    "create_mark",
    "set_aside",
]
