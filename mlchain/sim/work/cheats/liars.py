"""The liars of the agreement (`sim/adversary.py`) at the place of a whole node."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.consensus.messages import BlockProposal, decode_message
from mlchain.ledger.block import Block, decode_block, header_id
from mlchain.p2p.transport import Channel
from mlchain.sim import adversary
from mlchain.sim.adversary import Adversary, Ground
from mlchain.sim.work.cast import CHAIN_ID, make_key
from mlchain.sim.work.cheat import Cheat
from mlchain.sim.work.wire import PROPOSAL_TAG, now_ms

if TYPE_CHECKING:
    from mlchain.sim.work.place import Place
    from mlchain.sim.work.world import World


def _spoil(block: bytes, key: bytes) -> tuple[bytes, bytes]:
    old = decode_block(block)
    root = crypto.digest("sim/spoilt", old.header.state_root)
    spoilt = Block(replace(old.header, state_root=root), old.body)
    return header_id(spoilt.header), codec.encode(spoilt)


class _Agreement(Cheat):
    """Runs one of `ADVERSARIES` on the frames of the agreement."""

    kind: ClassVar[type[Adversary]]

    def __init__(self, world: World, place: Place | None, rng: Random) -> None:
        assert place is not None
        driver = self.kind.driver_type
        self.parts = {"driver_type": driver}  # type: ignore[misc]
        super().__init__(world, place, rng)
        size = sum(p.role == "validator" for p in world.places)
        ground = Ground(CHAIN_ID, self._extend, _spoil)
        key = make_key(place.name)
        self.liar = self.kind(rng, key, (place.index, size), world.blocks, ground)

    def _extend(self, height: int) -> bytes:
        assert self.place is not None
        node = self.place.node
        return node.duties.extension(height) if node is not None and node.duties else b""

    def outgoing(self, channel: int, frame: bytes, receiver: Place) -> list[bytes]:
        """Return what is sent in place of a frame."""
        if channel != Channel.CONSENSUS:
            return [frame]
        if frame[:1] == PROPOSAL_TAG:
            message = decode_message(frame)
            assert isinstance(message, BlockProposal)
            blocks = self.world.blocks.setdefault(message.proposal.height, {})
            blocks.setdefault(message.proposal.block_id, message.block)
        calm = self.world.office.network.is_calm(now_ms())
        return self.liar.outgoing(frame, receiver.index, calm)


class Twins(_Agreement):
    """Two honest copies under one key, which partitions keep apart."""

    row = "26 twins"
    kind = adversary.Twins


class Liar(_Agreement):
    """Signs, now and then, any well-formed message."""

    row = "26 sign anything"
    kind = adversary.Liar


class Equivocator(_Agreement):
    """Tells one half of the network this and the other half that."""

    row = "26 equivocate"
    must_fail = True
    kind = adversary.Equivocator


class Deserter(_Agreement):
    """Gives its prevotes to one peer alone."""

    row = "26 leave one locked"
    kind = adversary.Deserter


class Spoiler(_Agreement):
    """Proposes blocks that are invalid, and votes for them."""

    row = "26 spoil blocks"
    kind = adversary.Spoiler
