"""Is a history of concurrent operations linearizable?

`check` judges a history by a model of what its operations mean; `search` tells how.
"""

from p4xos.testing.linearizability.offences import Offence, lines, minimized
from p4xos.testing.linearizability.operations import UNKNOWN, Key, Machine, Model, Operation
from p4xos.testing.linearizability.search import STEPS_MAX
from p4xos.testing.linearizability.verdict import Verdict, check, partition

__all__ = [
    "STEPS_MAX", "UNKNOWN", "Key", "Machine", "Model", "Offence", "Operation", "Verdict", "check",
    "lines", "minimized", "partition",
]  # fmt: skip
