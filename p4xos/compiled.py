"""Whether this process runs the compiled modules, which `make compiled` makes, or their sources."""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader

_PACKAGES = ("p4xos", "kvstore")


def compiled_modules() -> list[str]:
    """The project's modules that this process has loaded as machine code."""
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in _PACKAGES
        and isinstance(getattr(module.__spec__, "loader", None), ExtensionFileLoader)
    )
