"""libpaxos programs on this log: docs/libpaxos.md.

Here are the names of its C interface, in Python and trio (`programs`), and a form for scripts
(`Blocking`). The gateway that serves programs in C is `p4xos libpaxos`.
"""

from __future__ import annotations

from p4xos.compat.libpaxos.blocking import Blocking
from p4xos.compat.libpaxos.client import Learning, Submission, Submitting
from p4xos.compat.libpaxos.programs import (
    evacceptor_free,
    evacceptor_init,
    evlearner_free,
    evlearner_init,
    evlearner_send_trim,
    evlearner_set_instance_id,
    evpaxos_acceptor_address,
    evpaxos_acceptor_count,
    evpaxos_acceptor_listen_port,
    evpaxos_config_free,
    evpaxos_config_read,
    evpaxos_proposer_address,
    evpaxos_proposer_listen_port,
    evpaxos_replica_count,
    evpaxos_replica_free,
    evpaxos_replica_init,
    evpaxos_replica_send_trim,
    evpaxos_replica_set_instance_id,
    evpaxos_replica_submit,
    evproposer_free,
    evproposer_init,
    evproposer_set_instance_id,
    paxos_submit,
)

__all__ = [
    "Blocking", "Learning", "Submission", "Submitting", "evacceptor_free", "evacceptor_init",
    "evlearner_free", "evlearner_init", "evlearner_send_trim", "evlearner_set_instance_id",
    "evpaxos_acceptor_address", "evpaxos_acceptor_count", "evpaxos_acceptor_listen_port",
    "evpaxos_config_free", "evpaxos_config_read", "evpaxos_proposer_address",
    "evpaxos_proposer_listen_port", "evpaxos_replica_count", "evpaxos_replica_free",
    "evpaxos_replica_init", "evpaxos_replica_send_trim", "evpaxos_replica_set_instance_id",
    "evpaxos_replica_submit", "evproposer_free", "evproposer_init", "evproposer_set_instance_id",
    "paxos_submit",
]  # fmt: skip
