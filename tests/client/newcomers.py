"""A real chain whose members come and go on under other keys, as governance lets them."""

from __future__ import annotations

from factories import BOND, TRANSACTION_GAS, GrowingChain, make_genesis, make_key, make_member
from msgspec.structs import replace

from mlchain.ledger.genesis import Member
from mlchain.node.duties import Duties
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.changes import AddMember, ReplaceKeys, change_digest, ready_bytes
from mlchain.vm.families.governance import COUNTER, DECIDED, Approve, ChangeKeys, Propose

EPOCH = 10
UNTIL = 10**6


def make_open_chain(validators: int = 4, workers: int = 1) -> GrowingChain:
    """A chain whose members may change every `EPOCH` blocks."""
    genesis = make_genesis(validators, workers)
    return GrowingChain(replace(genesis, params=replace(genesis.params, epoch_blocks=EPOCH)))


def admit(chain: GrowingChain, name: str) -> bytes:
    """Let a validator join by everybody's approval; return its key."""
    member = make_member(name, "validator")
    chain.send(Transfer(member.key, BOND))
    chain.grow()
    change = AddMember(member, UNTIL, _ready(chain, name, member))
    first, *others = [chain._key_of(key) for key in chain.chain.validators.keys]
    chain.send(Propose(change), first, price=0)
    chain.grow()
    for key in others:
        chain.send(Approve(_number(chain), change_digest(change)), key, price=0)
    return _take_effect(chain, name, member)


def rotate(
    chain: GrowingChain, old: str, new: str, name: str = "", role: str = "validator"
) -> bytes:
    """Let the member with key `old`, called `name`, go on under the key `new`; return that key."""
    member = replace(make_member(new, role), name=name or old, bond=0)
    change = ReplaceKeys(make_key(old).public, member, UNTIL, _ready(chain, new, member))
    chain.send(Transfer(change.old, TRANSACTION_GAS))
    chain.grow()
    chain.send(ChangeKeys(change), chain.keys[old])
    chain.grow()
    return _take_effect(chain, new, member)


def _ready(chain: GrowingChain, name: str, member: Member) -> bytes:
    return make_key(name).sign(ready_bytes(chain.genesis.chain_id, member, UNTIL))


def _number(chain: GrowingChain) -> int:
    return COUNTER.get(chain.chain.state()).count


def _take_effect(chain: GrowingChain, name: str, member: Member) -> bytes:
    """Give the last proposal's newcomer what it works with, and wait for the end of the epoch."""
    chain.keys[name] = make_key(name)
    if member.role == "validator":
        chain.duties[member.key] = Duties(chain.genesis, chain.keys[name])
    number = _number(chain)
    chain.grow_until(lambda: DECIDED.get(chain.chain.state(), number) is not None, 300)
    decided = DECIDED.get(chain.chain.state(), number)
    assert decided.outcome == "effective", decided.reason
    return member.key
