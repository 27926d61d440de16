"""Ways to spoil bytes, as a hostile peer, a torn file or a flipped bit does."""

from __future__ import annotations

import random
from collections.abc import Iterator

HUGE_HEADERS = (
    b"\xc6\xff\xff\xff\xff",  # bytes, 4 GiB
    b"\xdb\xff\xff\xff\xff",  # text
    b"\xdd\xff\xff\xff\xff",  # array
    b"\xdf\xff\xff\xff\xff",  # map
    b"\xc9\xff\xff\xff\xff\x01",  # extension
)
"""msgpack heads that promise what does not follow."""


def flip(draw: random.Random, data: bytes) -> bytes:
    """One to four bits turned over."""
    spoilt = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        if spoilt:
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def extend(draw: random.Random, data: bytes) -> bytes:
    return data + draw.randbytes(draw.randint(1, 64))


def splice(draw: random.Random, data: bytes) -> bytes:
    """A piece moved to another place."""
    one, other = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    place = draw.randrange(len(data) + 1)
    return data[:place] + data[one:other] + data[place:]


def overwrite(draw: random.Random, data: bytes) -> bytes:
    place = draw.randrange(len(data) + 1)
    junk = draw.randbytes(draw.randint(1, 16))
    return data[:place] + junk + data[place + len(junk) :]


def promise(draw: random.Random, data: bytes) -> bytes:
    """A length of gigabytes somewhere in it."""
    place = draw.randrange(len(data) + 1)
    return data[:place] + draw.choice(HUGE_HEADERS) + data[place + 1 :]


def nest(draw: random.Random, data: bytes) -> bytes:
    """Arrays in arrays, deeper than any stack."""
    return data[:1] + draw.choice([b"\x91", b"\x81", b"\xdc\x00\x01"]) * 100_000 + data[1:]


def widen(draw: random.Random, data: bytes) -> bytes:
    """A small number written in nine bytes: the same value, not its one encoding."""
    places = [i for i, byte in enumerate(data) if byte < 0x80]
    if not places:
        return data + b"\x00"
    place = draw.choice(places)
    return data[:place] + b"\xcf" + bytes(7) + data[place : place + 1] + data[place + 1 :]


def garbage(draw: random.Random, data: bytes) -> bytes:
    return draw.randbytes(draw.choice([0, 1, 5, 40, 300, 5000]))


WAYS = (flip, cut, extend, splice, overwrite, promise, widen, garbage, nest)


def spoilt(seed: int, samples: list[bytes], count: int) -> Iterator[bytes]:
    """Yield `count` messages that were good once. The same seed gives the same ones."""
    draw = random.Random(seed)
    for number in range(count):
        # deep nesting is long: now and then is enough
        way = draw.choice(WAYS[:-1]) if number % 50 else nest
        data = way(draw, draw.choice(samples))
        for _ in range(draw.choice([0, 0, 0, 1, 3])):
            data = draw.choice(WAYS[:-2])(draw, data)
        yield data
