"""Drawing a committee: tier `drawn:K` has a request computed by K validators (docs/adr/0042).

The block that begins a request names the *contributors*: the validators that voted on the block
before. The seed is made of their beacon elements of its own height, which nobody honest shows but
in a precommit for it. So there is one seed, and the next proposer can choose nothing. Where a
contributor hides its element there is none, and everybody computes.
"""

from __future__ import annotations

from mlchain import crypto
from mlchain.consensus.work.answers import draw_committee
from mlchain.consensus.work.tickets import BEACON
from mlchain.vm.context import BlockContext
from mlchain.vm.cover import is_newer
from mlchain.vm.families.governance import leaving_keys
from mlchain.vm.families.renewal import known_element, public_element


def find_contributors(block: BlockContext) -> tuple[bytes, ...]:
    """Return whose elements of this height will make a seed, in key order; none if too few do.

    Of a quorum some elements are secret still, whatever was proposed at this height before: if all
    its honest ones had precommitted another block, no quorum could have prevoted this one.
    """
    state, voters, length = block.state, block.validators, block.params.ticket_heights
    keys = tuple(
        key
        for key in voters.keys
        if public_element(state, key, BEACON, block.height - 1, length) is not None
        and known_element(state, key, BEACON, block.height, length) is not None
    )
    return keys if sum(map(voters.weight, keys)) >= voters.quorum else ()


def find_committee(
    block: BlockContext, request: bytes, size: int, contributors: tuple[bytes, ...], height: int
) -> tuple[bytes, ...] | None:
    """Return the `size` validators drawn for what block `height` began, None as long as an element
    is missing.

    Whoever joined later is not drawn: it could have made its key to fit the seed. Nor is who has
    asked to leave, for it binds itself to nothing more; nobody else is out of the draw by that.
    """
    length, parts = block.params.ticket_heights, []
    for key in contributors:
        element = public_element(block.state, key, BEACON, height, length)
        if element is None:
            return None
        parts.append(key + element)
    seed = crypto.digest("mlchain/committee-seed", *parts)
    leaving = leaving_keys(block.state)
    keys = tuple(
        key
        for key in block.validators.keys
        if key not in leaving and not is_newer(block.state, key, height)
    )
    return draw_committee(seed, request, keys, size)
