"""Hash chains whose elements are revealed one by one (protocol.md section 7).

A validator registers the tip x_0 of a chain with x_{h-1} = H(x_h). The element of height h is
secret until its owner shows it, cannot be chosen afterwards (the tip fixes it), and is checked by
hashing it down to any element already known. Before a chain ends, its owner registers the next
*generation*: the element of height h is then number h - start of the one that holds h.

Three chains serve three purposes: *tickets* draw the secret slices, *beacon* elements are shown in
every precommit and make the public randomness, *custody* elements key the digests that prove
re-execution and are shown when those are final.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2s

from mlchain import crypto
from mlchain.codec import Hash, Record, Uint

_LINK = b"mlchain/ticket:"
_STRIDE = 1024

TICKETS = "tickets"
BEACON = "beacon"
CUSTODY = "custody"
PURPOSES = (TICKETS, BEACON, CUSTODY)
"""In the order in which a member registers its tips."""


class Reveal(Record, frozen=True):
    """The highest element of a chain that is public: `element` is x_height."""

    element: Hash
    height: Uint


def hash_down(element: bytes, steps: int) -> bytes:
    """Return the element `steps` heights below `element`."""
    for _ in range(steps):
        element = blake2s(_LINK + element).digest()
    return element


class TicketChain:
    """The owner's view of a chain of `length` elements above its tip.

    Every 1,024th element is kept, and those between two of them while heights go through them: an
    element of every height costs one hash in the mean.
    """

    def __init__(self, length: int, kept: dict[int, bytes]) -> None:
        """`kept` are the `strides` of the chain."""
        self.length = length
        self._kept = kept
        self._above = -1
        self._between: list[bytes] = []  # from the kept element at height `_above` downwards

    @property
    def tip(self) -> bytes:
        """x_0, which is registered."""
        return self._kept[0]

    def at(self, height: int) -> bytes | None:
        """Return x_height, or None beyond the end of the chain."""
        if not 0 <= height <= self.length:
            return None
        above = min(-(-height // _STRIDE) * _STRIDE, self.length)
        if above != self._above:
            self._above, self._between = above, [self._kept[above]]
        while len(self._between) <= above - height:
            self._between.append(hash_down(self._between[-1], 1))
        return self._between[above - height]


def strides(secret: bytes, length: int) -> Iterator[tuple[int, bytes]]:
    """Yield (height, element) of a chain from its top to its tip, about 1,024 hashes at a time."""
    height, element = length, secret
    yield height, element
    while height > 0:
        step = height % _STRIDE or _STRIDE
        element = hash_down(element, step)
        height -= step
        yield height, element


def chain_secret(key: crypto.SecretKey, purpose: str, chain_id: str, generation: int = 0) -> bytes:
    """Return the top of the chain that `key` uses for `purpose` on one ledger."""
    return key.derive(f"{purpose}/{chain_id}" + (f"/{generation}" if generation else ""))


def make_chain(
    key: crypto.SecretKey, purpose: str, chain_id: str, length: int, generation: int = 0
) -> TicketChain:
    """Return the whole chain of `chain_secret`."""
    secret = chain_secret(key, purpose, chain_id, generation)
    return TicketChain(length, dict(strides(secret, length)))


def check_reveal(known: Reveal, element: bytes, height: int) -> Reveal | None:
    """Return what is public after `element` was shown for `height`; None if it does not belong.

    `known` is the highest public element before, of the chain that holds `height`. Costs
    |height - known.height| hashes.
    """
    if height <= known.height:
        below = hash_down(known.element, known.height - height)
        return known if below == element else None
    if hash_down(element, height - known.height) != known.element:
        return None
    return Reveal(element, height)
