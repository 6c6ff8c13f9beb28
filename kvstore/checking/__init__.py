"""Is a running store linearizable? A workload, what it saw, what commands mean, and the verdict."""

from kvstore.checking.history import Attempt, History, Outcome, read_history
from kvstore.checking.judging import Judged, judge
from kvstore.checking.model import StoreModel
from kvstore.checking.workload import Workload

__all__ = [
    "Attempt",
    "History",
    "Judged",
    "Outcome",
    "StoreModel",
    "Workload",
    "judge",
    "read_history",
]
