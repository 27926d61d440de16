"""Draws of partitions as JSON values: the seed, the parts, and what was merged of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlchain.crypto import address
from mlchain.errors import NotFound
from mlchain.ledger.state import State
from mlchain.ledger.unixfs import cid_text
from mlchain.node.plain import Json, to_json
from mlchain.vm.families.merges import Merge, get_merges, is_standing
from mlchain.vm.families.partitions import DRAWS, WAITING_DRAWS, Draw, get_draws


class DrawViews:
    """Reads the draws of one chain."""

    def __init__(self, state: Callable[[], State], names: Mapping[bytes, str]) -> None:
        self._state, self._names = state, names

    def list(self, content: bytes, limit: int) -> list[Json]:
        """Return up to `limit` draws of a dataset, the latest first."""
        state = self._state()
        draws = get_draws(state, content)[:limit]
        return [self._describe(state, identity, draw) for identity, draw in draws]

    def find(self, identity: bytes) -> Json:
        """Return one draw.

        Raises:
            NotFound: there is none.
        """
        state = self._state()
        draw = DRAWS.get(state, identity)
        if draw is None:
            raise NotFound(f"no draw {identity.hex()[:12]}")
        return self._describe(state, identity, draw)

    def _describe(self, state: State, identity: bytes, draw: Draw) -> Json:
        is_waiting = WAITING_DRAWS.get(state, draw.content[4:], identity) is not None
        stage = "named" if draw.named else "drawn" if draw.seed else "requested"
        return to_json(
            {
                "id": identity,
                "dataset": cid_text(draw.content),
                "owner": self._names.get(draw.owner) or address(draw.owner),
                "state": "waiting" if is_waiting else stage,
                "height": draw.height,
                "seed": draw.seed.hex(),
                "parts": draw.parts,
                "test_rows": draw.test_rows,
                "named": [
                    {"cid": cid_text(part.content), "size": part.size, "rows": part.rows}
                    for part in draw.named
                ],
                "merges": [
                    self._merge(state, said, merge) for said, merge in get_merges(state, identity)
                ],
            }
        )

    def _merge(self, state: State, said: bytes, merge: Merge) -> Json:
        return {
            "model": cid_text(merge.content),
            "size": merge.size,
            "jobs": [job.hex() for job in merge.jobs],
            "owner": self._names.get(merge.owner) or address(merge.owner),
            "height": merge.height,
            "standing": is_standing(state, said, merge),
            "confirmed_by": [self._names.get(key) or address(key) for key in merge.holders],
        }
