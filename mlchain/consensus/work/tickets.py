"""Hash chains whose elements are revealed one by one (protocol.md section 7).

A validator registers the tip x_0 of a chain with x_{h-1} = H(x_h). The element of height h is
secret until its owner shows it, cannot be chosen afterwards (the tip fixes it), and is checked by
hashing it down to any element already known. Three chains serve three purposes: *tickets* draw the
secret slices, *beacon* elements are shown in every precommit and make the public randomness,
*custody* elements key the digests that prove re-execution and are shown when those are final.
"""

from __future__ import annotations

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

    Every 1,024th element is kept, so one element costs at most 1,023 hashes.
    """

    def __init__(self, secret: bytes, length: int) -> None:
        self.length = length
        self._kept = {length: secret}
        height, element = length, secret
        while height > 0:
            step = height % _STRIDE or _STRIDE
            element = hash_down(element, step)
            height -= step
            self._kept[height] = element

    @property
    def tip(self) -> bytes:
        """x_0, which is registered."""
        return self._kept[0]

    def at(self, height: int) -> bytes | None:
        """Return x_height, or None beyond the end of the chain."""
        if not 0 <= height <= self.length:
            return None
        above = min(-(-height // _STRIDE) * _STRIDE, self.length)
        return hash_down(self._kept[above], above - height)


def make_chain(key: crypto.SecretKey, purpose: str, chain_id: str, length: int) -> TicketChain:
    """Return the chain that `key` uses for `purpose` on one ledger."""
    return TicketChain(key.derive(f"{purpose}/{chain_id}"), length)


def check_reveal(known: Reveal, element: bytes, height: int, length: int) -> Reveal | None:
    """Return what is public after `element` was shown for `height`; None if it does not belong.

    `known` is the highest public element before. Costs |height - known.height| hashes.
    """
    if height > length:
        return None
    if height <= known.height:
        below = hash_down(known.element, known.height - height)
        return known if below == element else None
    if hash_down(element, height - known.height) != known.element:
        return None
    return Reveal(element, height)
