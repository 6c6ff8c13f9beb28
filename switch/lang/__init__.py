"""A P4-16 subset for v1model: from text to one intermediate representation, and onwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switch.lang.ir import Program


def load(
    path: str | Path,
    defines: Mapping[str, str | int] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Program:
    """Read, check and lower a program.

    Args:
      path: the file; error messages name it as it is given here.
      defines: macros, as `-D name=value` gives them to p4c.
      texts: stands in place of files, by the name that messages give them: a program that is
        not on disk, or a changed include.

    Raises:
      P4Error: the first thing that is wrong, with its place.
      OSError: the file itself cannot be read.
    """
    # Not above: who only needs the representation need not load the front end.
    from switch.lang.lower import lower
    from switch.lang.parser import parse

    return lower(parse(path, defines, texts))
