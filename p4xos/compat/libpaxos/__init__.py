"""libpaxos programs on this log: docs/libpaxos.md."""
