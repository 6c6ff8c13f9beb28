"""The roles of Paxos as pure, batched state machines: no I/O, no clock, no randomness."""
