"""Commands on strings, made up by chance, here and in a real Redis: replies and values agree.

Left out is where this store differs on purpose: bits and lengths between its own longest value and
Redis', fields that stick out of the longest value, offsets whose product overflows 64 bits, and
saturating the lowest integers, which Redis 7.0 lets overflow to the highest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.replies import encode
from kvstore.resp import Command
from tests.kvstore.conversations import RealRedis, fresh_replica

KEYS = [b"a", b"b", b"c", b"d"]
LONG = 5000
"""A key with a longer value is deleted, or LCS takes long in Redis."""
TEXTS = b"""0 1 -1 10 255 256 9223372036854775807 -9223372036854775808 0.1 1e5 3.0e3 inf nan -0.0
abc 1.5 0x1p-3 1e-18 1e4931 1.2e4932 1e-4951 3e-4951 +5 -.5 5. . 1e 0x 0x.8 12345678901234567890123
-1e30 1_0 0e5 99999999999999999.5 1.1 2.2 -3.3""".split()
NUMBERS = b"""0 1 -1 2 -3 7 8 9 63 -100 100 9223372036854775807 -9223372036854775808 x 1.0
4294967296 01""".split()
AMOUNTS = b"""10000000 99999999999 99999999999999 0 -1 x 9223372036854775807
9223372036854775""".split()
"""Of time: each is far in the past or in the future, by log time here and by Redis' clock."""


class Chance:
    """Makes up commands."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._makers: list[Callable[[], Command]] = [
            self._set, self._set, self._getex, self._get, self._two_words, self._add, self._add,
            self._range, self._setrange, self._many, self._lcs, self._bit, self._bit_range,
            self._bit_range, self._bitop, self._bitfield, self._bitfield,
        ]  # fmt: skip

    def command(self) -> Command:
        """Any one; its name and options in either case."""
        name, *words = self._random.choice(self._makers)()
        return [self._cased(name), *words]

    def key(self) -> bytes:
        return self._random.choice(KEYS)

    def _one_of(self, words: bytes) -> bytes:
        return self._random.choice(words.split())

    def _cased(self, word: bytes) -> bytes:
        return self._random.choice([word.lower(), word.upper()])

    def _value(self) -> bytes:
        chance = self._random.random()
        if chance < 0.4:
            return self._random.choice([*TEXTS, b"", b" 1", b"1 "])
        if chance < 0.5:
            return b"%d" % self._random.randint(-1000, 1000)
        if chance < 0.8:
            pool = b"\0\0\xff\xff" + self._random.randbytes(4)
            return bytes(self._random.choices(pool, k=self._random.randrange(40)))
        return bytes(self._random.choices(b"ab", k=self._random.randrange(16)))

    def _number(self, low: int = -20, high: int = 300) -> bytes:
        if self._random.random() < 0.1:
            return self._random.choice(NUMBERS)
        return b"%d" % self._random.randint(low, high)

    def _options(self, names: bytes) -> Command:
        words: Command = []
        for _ in range(self._random.choice([0, 1, 1, 2, 3])):
            name = self._one_of(names)
            words.append(self._cased(name))
            if name in (b"ex", b"px", b"exat", b"pxat") and self._random.random() < 0.95:
                words.append(self._random.choice(AMOUNTS))
        return words

    def _set(self) -> Command:
        return [b"set", self.key(), self._value(),
                *self._options(b"nx xx get keepttl ex px exat pxat get nx persist")]  # fmt: skip

    def _getex(self) -> Command:
        return [b"getex", self.key(), *self._options(b"persist ex px exat pxat keepttl")]

    def _get(self) -> Command:
        return [self._one_of(b"get strlen getdel incr decr exists"), self.key()]

    def _two_words(self) -> Command:
        return [self._one_of(b"setnx getset append append"), self.key(), self._value()]

    def _add(self) -> Command:
        names = b"incrby decrby incrbyfloat incrbyfloat incrbyfloat"
        if self._random.random() < 0.5:
            return [self._one_of(names), self.key(), self._value()]
        size = 10.0 ** self._random.randint(-20, 25)
        amount = self._random.uniform(-1, 1) * size
        return [b"incrbyfloat", self.key(), b"%.*g" % (self._random.randint(1, 17), amount)]

    def _range(self) -> Command:
        return [self._one_of(b"getrange substr"), self.key(), self._number(-20, 20),
                self._number(-20, 20)]  # fmt: skip

    def _setrange(self) -> Command:
        if self._random.random() < 0.2:
            return [self._one_of(b"setex psetex"), self.key(), self._one_of(b"0 -1 x 9999999"),
                    self._value()]  # fmt: skip
        return [b"setrange", self.key(), self._number(0, 30), self._value()]

    def _many(self) -> Command:
        if self._random.random() < 0.3:
            return [b"mget", *self._random.choices(KEYS, k=self._random.randrange(3))]
        words = [word for _ in range(self._random.randint(0, 2))
                 for word in (self.key(), self._value())]  # fmt: skip
        odd = [self.key()] if self._random.random() < 0.1 else []
        return [self._one_of(b"mset msetnx"), *words, *odd]

    def _lcs(self) -> Command:
        options = [b"LEN", b"idx", b"WITHMATCHLEN"]
        words = self._random.sample(options, self._random.choice([0, 1, 2]))
        if self._random.random() < 0.3:
            words += [b"minmatchlen", self._number(-1, 5)]
        return [b"lcs", self.key(), self.key(), *words]

    def _bit(self) -> Command:
        if self._random.random() < 0.3:
            return [b"getbit", self.key(), self._number()]
        return [b"setbit", self.key(), self._number(0, 300), self._one_of(b"0 1 0 1 0 1 2 x")]

    def _bit_range(self) -> Command:
        words = [self._number(-200, 300) for _ in range(self._random.choice([0, 1, 2, 2, 2, 2, 3]))]
        if len(words) == 2 and self._random.random() < 0.7:
            words.append(self._cased(self._one_of(b"bit bit bit byte foo")))
        if self._random.random() < 0.5:
            return [b"bitcount", self.key(), *words]
        return [b"bitpos", self.key(), self._one_of(b"0 1 0 1 0 1 2 x"), *words]

    def _bitop(self) -> Command:
        sources = self._random.choices(KEYS, k=self._random.randrange(4))
        return [b"bitop", self._cased(self._one_of(b"and or xor not foo")), self.key(), *sources]

    def _bitfield(self) -> Command:
        words: Command = []
        for _ in range(self._random.randrange(4)):
            name = self._one_of(b"get set incrby overflow")
            words.append(self._cased(name))
            if name == b"overflow":
                words.append(self._cased(self._one_of(b"wrap sat fail wrap sat fail foo")))
                continue
            words += [self._type(), self._place()]
            if name != b"get":
                amount = self._random.choice([
                    self._random.randint(-300, 300), self._random.randint(-(1 << 62), 1 << 62)
                ])  # fmt: skip
                words.append(b"%d" % amount)
        if words and self._random.random() < 0.05:
            words.pop()
        return [self._one_of(b"bitfield bitfield bitfield_ro"), self.key(), *words]

    def _place(self) -> bytes:
        if self._random.random() < 0.3:
            return b"#%d" % self._random.randint(-1, 30)
        return self._number(0, 200)

    def _type(self) -> bytes:
        if self._random.random() < 0.05:
            return self._one_of(b"u64 i65 u0 x8 u i64 u63")
        return self._one_of(b"u i") + b"%d" % self._random.randint(1, 63)


@pytest.mark.parametrize("seed", range(8))
def test_any_commands_agree_with_redis(
    tmp_path: Path, redis_connection: RealRedis, seed: int
) -> None:
    chance = Chance(seed)
    assert redis_connection.run([b"FLUSHALL"]) == b"+OK\r\n"
    with fresh_replica(tmp_path) as replica:
        for _ in range(1500):
            command = chance.command()
            told = redis_connection.run(command)
            assert encode(replica.run(*command), 2) == told, command
            for key in {*command[1:]} & {*KEYS}:
                value = replica.keys.get(key)
                assert encode(value, 2) == redis_connection.run([b"GET", key]), command
                expires = int(redis_connection.run([b"PTTL", key])[1:]) >= 0
                assert (replica.keys.expire_at(key) is not None) == expires, command
                if value is not None and len(value) > LONG:
                    replica.keys.remove(key)
                    redis_connection.run([b"DEL", key])
