"""RocksDB's log without holes: what is written, synced and moved to a new log file, in that order.

RocksDB begins a new log file whenever it begins a new table in memory, and the old file need not be
synced then. After a power cut the end of the old one may be missing while the beginning of the new
one is there. Each is well formed, so RocksDB reads both: batches in the middle are gone, and what
the later ones say of the position is believed. So it is never left to RocksDB when a new file
begins: here the old one is synced before, and nothing is written in between.
"""

from __future__ import annotations

import threading
import time

from rocksdict import Rdict, WriteBatch

TABLE_BYTES = 24 << 20
"""What a table in memory takes before the next begins; see WRITE_BUFFER_BYTES."""
WRITE_BUFFER_BYTES = 64 << 20
"""Where RocksDB would begin one by itself, at the next write: above what is here by then."""
ENTRY_BYTES = 64
"""What a key and value take in memory beside their bytes, at least."""
LOOK_S = 0.005
assert 2 * TABLE_BYTES < WRITE_BUFFER_BYTES


class WriteAhead:
    """The writes of one open database. All calls may raise whatever RocksDB raises."""

    def __init__(self, database: Rdict) -> None:
        """Of a database that was just opened: its tables in memory are empty."""
        self._database = database
        self._bytes = 0
        self._lock = threading.Lock()

    def write(self, batch: WriteBatch) -> None:
        """Writes a batch; where the table in memory is full, the next begins behind it."""
        size = batch.size_in_bytes() + ENTRY_BYTES * batch.len()
        with self._lock:
            self._database.write(batch)
            self._bytes += size
            if self._bytes >= TABLE_BYTES:
                self._switch()

    def sync(self) -> None:
        """All that was written is durable when this returns."""
        self._database.flush_wal(True)

    def write_out(self) -> None:
        """Writes tables of what is in memory; a worker thread may call it while batches go on."""
        self.sync()  # so that the one under the lock finds little
        with self._lock:
            self._switch()
        while self._database.property_int_value("rocksdb.num-immutable-mem-table"):
            if self._database.property_int_value("rocksdb.background-errors"):
                self._database.flush(True)  # raises what went wrong
            time.sleep(LOOK_S)

    def _switch(self) -> None:
        self.sync()
        self._database.flush(False)
        self._bytes = 0
