"""Hashes of passwords: scrypt with a salt of each user's own, written as one word.

    scrypt:14:8:5:c2FsdA==:aGFzaA==     log2(n), r, p, salt, hash

The numbers stand with each hash, so that they can be raised without making the others worthless.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Self

LOG_N, BLOCK_SIZE, PARALLEL = 14, 8, 5
"""OWASP's: 16 MiB, and some 0.3 s of one core."""
_MEMORY_BYTES_MAX = 256 << 20
"""What one check may take, whatever a file says."""
_SALT_BYTES = 16
_HASH_BYTES = 32
PASSWORD_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Hash:
    """What is kept of a password."""

    log_n: int
    block_size: int
    parallel: int
    salt: bytes
    digest: bytes

    def __repr__(self) -> str:
        """Without what could be guessed at: it may end in a log."""
        return "<password hash>"

    def __str__(self) -> str:
        """As the file has it."""
        salt, digest = (b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt:{self.log_n}:{self.block_size}:{self.parallel}:{salt}:{digest}"

    @classmethod
    def parse(cls, word: str) -> Self:
        """Reads the word.

        Raises:
          ValueError: what is wrong with it; nothing of it is quoted.
        """
        parts = word.split(":")
        if len(parts) != 6 or parts[0] != "scrypt":
            raise ValueError("the hash is not scrypt:LOG_N:R:P:SALT:HASH")
        if not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts[1:4]):
            raise ValueError("the hash has no good numbers")
        log_n, block_size, parallel = map(int, parts[1:4])
        if not (1 <= log_n <= 24 and block_size and parallel) or (
            128 * block_size * ((1 << log_n) + parallel + 2) > _MEMORY_BYTES_MAX
        ):
            raise ValueError("the hash asks for more than 256 MiB, or for none")
        try:
            salt, digest = (b64decode(part, validate=True) for part in parts[4:])
        except (binascii.Error, ValueError):
            raise ValueError("the hash is cut or changed: it is no base64") from None
        if len(salt) < _SALT_BYTES or len(digest) != _HASH_BYTES:
            raise ValueError("the hash is cut or changed: it has not its length")
        return cls(log_n, block_size, parallel, salt, digest)

    @classmethod
    def of(cls, password: bytes, log_n: int = LOG_N, parallel: int = PARALLEL) -> Self:
        """A new hash; takes its time, on purpose."""
        salt = secrets.token_bytes(_SALT_BYTES)
        digest = _scrypt(password, salt, log_n, BLOCK_SIZE, parallel)
        return cls(log_n, BLOCK_SIZE, parallel, salt, digest)

    def matches(self, password: bytes) -> bool:
        """Whether it is of this password; as slow as to make it, and without Python's lock."""
        digest = _scrypt(password, self.salt, self.log_n, self.block_size, self.parallel)
        return hmac.compare_digest(digest, self.digest)


def _scrypt(password: bytes, salt: bytes, log_n: int, block_size: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=1 << log_n, r=block_size, p=parallel,
        maxmem=_MEMORY_BYTES_MAX + (1 << 20), dklen=_HASH_BYTES,
    )  # fmt: skip
