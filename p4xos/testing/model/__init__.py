"""The slow, obvious model of each data plane, one message at a time.

Start with `acceptor.py`; `docs/PROTOCOL.md` sections 3 to 5 are its source, and it is written from
that text alone: the fast roles, the vectors and other data planes are compared with it.
"""

from p4xos.testing.model.acceptor import ModelAcceptor, Slot
from p4xos.testing.model.learner import ModelLearner
from p4xos.testing.model.messages import Answers
from p4xos.testing.model.sequencer import ModelSequencer
from p4xos.testing.model.sessions import Delivered, Event, ModelSessions

__all__ = [
    "Answers",
    "Delivered",
    "Event",
    "ModelAcceptor",
    "ModelLearner",
    "ModelSequencer",
    "ModelSessions",
    "Slot",
]
