"""Whose policy a program has that is given none: that which its operator names, else the default.

P4XOS_POLICY=site_rules:no_shared_memory names a function of a module that can be imported, for
programs that the operator starts and has not written, as the nodes of a cluster.
"""

from __future__ import annotations

import os
from importlib import import_module

from p4xos.chunnels.choosing import Policy, default_policy

POLICY_VARIABLE = "P4XOS_POLICY"
"""Of the environment: MODULE:FUNCTION."""


def operators_policy() -> Policy:
    """The one of the environment.

    Raises:
      ValueError: it names none; the message says why.
    """
    named = os.environ.get(POLICY_VARIABLE)
    if not named:
        return default_policy
    module, _, function = named.partition(":")
    try:
        if not module or not function:
            raise TypeError("that is no MODULE:FUNCTION")
        policy: Policy = getattr(import_module(module), function)
        if not callable(policy):
            raise TypeError(f"{function} is no function")
    except Exception as error:  # whatever somebody's module does when it is imported
        raise ValueError(
            f"{POLICY_VARIABLE}={named}: {type(error).__name__}: {error}; name a function that "
            "takes candidates and returns them in order, as in site_rules:no_shared_memory, in a "
            "module that is installed or on PYTHONPATH"
        ) from error
    return policy
