"""Who we are and whom we talk to, as the state says: it changes while the node runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog
import trio

from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError
from mlchain.ledger.state import State
from mlchain.p2p.transport import PeerAddress, Role, Transport
from mlchain.vm.families.members import MEMBERS, MemberRecord

log = structlog.get_logger("membership")

_ORDER = (Role.OBSERVER, Role.WORKER, Role.VALIDATOR)
"""A process with several identities may do what the last of them may."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The secret keys of one node; None for a role it does not play.

    A key whose time has not come, or is over, plays no role either: `next_validator`,
    `next_worker` and `next_peer` wait for the epoch in which they take the place of the others.
    """

    peer: SecretKey
    validator: SecretKey | None
    worker: SecretKey | None
    next_validator: SecretKey | None = None
    next_worker: SecretKey | None = None
    next_peer: SecretKey | None = None

    def at(self, state: State) -> Keys:
        """Return the keys that play their role in the block after `state`."""
        is_next = self.next_peer is not None and _is_registered(state, self.next_peer.public)
        return Keys(
            self.next_peer if is_next and self.next_peer else self.peer,
            _active(state, "validator", self.next_validator, self.validator),
            _active(state, "worker", self.next_worker, self.worker),
        )

    def describe(self) -> tuple[bytes, ...]:
        """Return the public halves, to tell whether two are the same."""
        return tuple(key.public if key else b"" for key in (self.peer, self.validator, self.worker))


class Membership:
    """Our own roles, and the list of those we talk to; `follow` keeps both true to the state."""

    def __init__(self, candidates: Keys, transport: Transport, state: State) -> None:
        """`candidates` are all our keys; `transport` may know others than the state does.

        Raises:
            ConfigError: a member's key comes with another network key than its own.
        """
        self._candidates = candidates
        self._transport = transport
        self._known: dict[bytes, PeerAddress] = {}
        self._former: dict[bytes, None] = {}
        self._state = state
        self.keys = candidates.at(state)
        for member in self.members:
            if member.peer != transport.public_key:  # nobody would let it say what its role may
                raise ConfigError(
                    f"the network key is {transport.public_key.hex()[:16]}, "
                    f"the chain knows {member.name} by {member.peer.hex()[:16]}",
                    "put back the peer key that is registered (a new one waits as next-peer.json), "
                    "or register this one with mlchain gov rotate",
                )
        self.outdated = trio.Event()
        """Set when our keys play another role than the node was made for: make it anew."""
        self.validator_peers: tuple[bytes, ...] = ()
        unplayed = [key for key in candidates.describe()[1:] if key and not MEMBERS.get(state, key)]
        for key in unplayed:
            log.warning("not-a-member-yet", key=key.hex()[:16], role="observer until it is")
        transport.role = self._peer_role(state)
        for status in transport.peers():
            self._known[status.peer] = PeerAddress("", 0, status.role, status.name)
        self.follow(state)

    @property
    def members(self) -> tuple[MemberRecord, ...]:
        """What the state says of the members that we play."""
        keys = (self.keys.validator, self.keys.worker)
        found = [MEMBERS.get(self._state, key.public) for key in keys if key]
        return tuple(member for member in found if member is not None)

    def peer_of(self, key: bytes) -> bytes | None:
        """Return the network key of a member, of today or before."""
        member = MEMBERS.get(self._state, key)
        return member.peer if member else None

    def follow(self, state: State) -> None:
        """Let in who has come and cut off who has gone.

        Who has another role or address is let in anew: a link carries what the role at its
        beginning allows. A peer key that was replaced is good for one epoch more: its node goes on
        with the new one when it has the block that says so, and may have to fetch it from us.
        """
        self._state = state
        own = (self._transport.public_key, self._candidates.peer.public)
        if self._candidates.next_peer is not None:
            own += (self._candidates.next_peer.public,)
        wanted = peer_addresses(state, *own)
        self._keep_former(wanted)
        for peer in [p for p in self._known if p not in wanted]:
            self._transport.remove_peer(peer)
            del self._known[peer]
        for peer, address in wanted.items():
            known = self._known.get(peer)
            if known is not None and known.role != address.role:
                self._transport.remove_peer(peer)
            if known != address:
                self._transport.add_peer(peer, address)
                self._known[peer] = address
        self.validator_peers = tuple(p for p, a in wanted.items() if a.role == Role.VALIDATOR)
        keys = self._candidates.at(state)
        is_same = keys.describe() == self.keys.describe()
        if not is_same or self._transport.role != self._peer_role(state):
            self.outdated.set()

    def _keep_former(self, wanted: dict[bytes, PeerAddress]) -> None:
        """Add to `wanted` the peers whose key another has just replaced."""
        new = {address.name for peer, address in wanted.items() if peer not in self._known}
        gone = [p for p in self._known if p not in wanted and p not in self._former]
        self._former = {p: None for p in gone if self._known[p].name in new}
        wanted.update({peer: self._known[peer] for peer in self._former})

    def _peer_role(self, state: State) -> str:
        """Return what others let us do, by our peer key."""
        own = self._transport.public_key
        roles = [Role(m.role) for _, m in MEMBERS.items(state) if m.peer == own and not m.left]
        return max(roles, key=_ORDER.index, default=Role.OBSERVER)


def peer_addresses(state: State, *own: bytes) -> dict[bytes, PeerAddress]:
    """Return everybody we talk to, by peer key; `own` are ours."""
    found: dict[bytes, PeerAddress] = {}
    for _, member in MEMBERS.items(state):
        known = found.get(member.peer)
        if member.left or member.peer in own:
            continue
        if known is None or _ORDER.index(Role(member.role)) > _ORDER.index(Role(known.role)):
            found[member.peer] = PeerAddress(member.host, member.port, member.role, member.name)
    return found


class Names(Mapping[bytes, str]):
    """Names of members by key, those of today and before."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def __getitem__(self, key: bytes) -> str:
        member = MEMBERS.get(self._state(), key)
        if member is None:
            raise KeyError(key)
        return member.name

    def __iter__(self) -> Iterator[bytes]:
        return (key for (key,), _ in MEMBERS.items(self._state()))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _is_registered(state: State, peer: bytes) -> bool:
    return any(m.peer == peer and not m.left for _, m in MEMBERS.items(state))


def _active(state: State, role: str, *keys: SecretKey | None) -> SecretKey | None:
    for key in keys:
        member = MEMBERS.get(state, key.public) if key else None
        if member is not None and member.role == role and not member.left:
            return key
    return None
