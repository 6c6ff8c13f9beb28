"""The store from a Python program: see `client`."""

from kvstore.client.call import READS, Call, Word
from kvstore.client.client import Client
from kvstore.client.errors import (
    Aborted,
    ErrorReply,
    OutcomeUnknown,
    StoreError,
    Unavailable,
    UnexpectedReply,
)
from kvstore.client.pipeline import Pipeline
from kvstore.client.transaction import Transaction

__all__ = [
    "READS",
    "Aborted",
    "Call",
    "Client",
    "ErrorReply",
    "OutcomeUnknown",
    "Pipeline",
    "StoreError",
    "Transaction",
    "Unavailable",
    "UnexpectedReply",
    "Word",
]
