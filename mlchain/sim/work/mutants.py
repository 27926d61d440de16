"""Deliberate bugs in the rules of work, each with the adversary that lives on it.

One is a part of honest nodes exchanged, or a name of the real code bound to something else while a
run lasts. Nothing can switch them on outside the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from mlchain.consensus.work.dispute import Ruling, settle
from mlchain.consensus.work.sampling import draw_slice
from mlchain.consensus.work.tickets import TICKETS
from mlchain.errors import InvalidBlock
from mlchain.ledger.state import State
from mlchain.ledger.transaction import decode_transaction
from mlchain.node import auditor as node_auditor
from mlchain.node.agreement import Agreement
from mlchain.node.auditor import Auditor
from mlchain.node.chain import Chain
from mlchain.node.subject import Target
from mlchain.vm import execute, lifecycle, votes
from mlchain.vm.credits import credit_segment
from mlchain.vm.families import members
from mlchain.vm.families.accounts import ACCOUNTS, Account, credit, get_account
from mlchain.vm.families.jobs import SEGMENTS
from mlchain.vm.families.renewal import show_element


@dataclass(frozen=True)
class Mutant:
    """`parts` of honest nodes, and (module, name) -> what stands there instead."""

    adversary: str
    parts: dict[str, Any] = field(default_factory=dict)
    names: dict[tuple[Any, str], Any] = field(default_factory=dict)
    nodes: int = 4
    """Validators it takes to show."""
    is_calm: bool = False
    """Whether it is looked for with one job in fair weather, which is quick."""


class _NoAudit(Auditor):
    """Attests without looking."""

    async def _audit(self, state: State, target: Target) -> None:
        from mlchain.sim.work.cheats.validators import attest

        ticket = self.duties.ticket(target.segment.commit_height)
        if ticket is not None:
            mine = attest(target, ticket, self.key)
            self.duties.add_attestation(mine, target.segment.attest_from)


def _any_ticket(
    state: Any, validator: bytes, purpose: str, height: int, element: bytes, params: Any
) -> bool:
    return purpose == TICKETS or show_element(state, validator, purpose, height, element, params)


def _early(block: Any, validator: bytes, attestation: Any, height: int) -> bool:
    segment = SEGMENTS.get(block.state, attestation.job, attestation.segment)
    late = max(height, segment.attest_from + 1) if segment else height
    return _process_attestation(block, validator, attestation, late)


_process_attestation = votes._process_attestation
_next_block_ms, _is_overdue = Agreement.next_block_ms, lifecycle._is_overdue
_pay, _end, _pay_slash = lifecycle._pay, lifecycle._end, members._pay_slash


def _own_counts(block: Any, validator: bytes, attestation: Any, height: int) -> bool:
    """Take an attestation of one's own work as if the work were somebody else's."""
    segment = SEGMENTS.get(block.state, attestation.job, attestation.segment)
    if segment is None or segment.worker != validator:
        return _process_attestation(block, validator, attestation, height)
    where = attestation.job, attestation.segment
    SEGMENTS.put(block.state, replace(segment, worker=bytes(32)), *where)
    is_right = _process_attestation(block, validator, attestation, height)
    found = SEGMENTS.get(block.state, *where)
    SEGMENTS.put(block.state, replace(found, worker=validator), *where)
    return is_right


def _public_slice(job: Any, segment: Any, validator: bytes, ticket: bytes) -> tuple[int, ...]:
    """Draw from what the worker itself chose; and half of it, so that it matters."""
    commit = segment.commit
    return draw_slice(bytes(32), commit.leaf_root, commit.count, max(1, commit.count // 2))


def _one_decides(verdicts: Any, validators: Any, is_due: bool) -> Ruling:
    found = list(verdicts)
    if any(outcome == 1 for _, outcome in found):
        return Ruling.UPHELD
    return settle(found, validators, is_due)


def _one_is_unserved(verdicts: Any, validators: Any, is_due: bool) -> Ruling:
    found = list(verdicts)
    if any(outcome == 2 for _, outcome in found):
        return Ruling.UNAVAILABLE
    return settle(found, validators, is_due)


def _any_is_overdue(block: Any, job: Any, index: int, segment: Any) -> bool:
    """Have the deadline run while the segment before is not HARD."""
    return _is_overdue(block, replace(job, hard=index), index, segment)


def _wants_late(agreement: Agreement) -> int:
    """Want every block some seconds late; all goes on, only that nobody knows what it waits for."""
    return _next_block_ms(agreement) + 6_000


def _pay_twice(*what: Any) -> int:
    _pay(*what)
    return _pay(*what)


def _refund_all(block: Any, job_id: bytes, job: Any, state: Any) -> None:
    credit(block.state, job.submitter, job.fee - job.escrow)
    _end(block, job_id, job, state)


def _keep_slash(state: Any, amount: int, finders: tuple[bytes, ...]) -> None:
    for finder in finders:
        credit(state, finder, amount // 2 // len(finders))


def _refuse(*args: Any) -> None:
    raise InvalidBlock("evidence is never taken")


def _any_nonce(block: Any, genesis: Any, data: bytes, open_: Any) -> Any:
    """Take a transaction whose turn is over as if it were its turn."""
    state, body = block.state, decode_transaction(data).body
    nonce = get_account(state, body.sender).nonce
    if body.nonce >= nonce:
        return _execute_transaction(block, genesis, data, open_)
    _set_nonce(state, body.sender, body.nonce)
    try:
        return _execute_transaction(block, genesis, data, open_)
    finally:
        _set_nonce(state, body.sender, nonce)


_execute_transaction = execute._execute_transaction


def _set_nonce(state: State, key: bytes, nonce: int) -> None:
    ACCOUNTS.put(state, Account(get_account(state, key).balance, nonce), key)


def _credit_all(block: Any, job: Any, *what: Any) -> int:
    """Credit work whose seed was known before it was ordered."""
    return credit_segment(block, replace(job, seed=b""), *what)


MUTANTS: dict[str, Mutant] = {
    "no-audit": Mutant("skip", {"auditor_type": _NoAudit}),
    "any-ticket": Mutant("grind-tickets", names={(votes, "show_element"): _any_ticket}),
    "early-attestations": Mutant("early-attest", names={(votes, "_process_attestation"): _early}),
    "own-work": Mutant(
        "own-work", names={(votes, "_process_attestation"): _own_counts}, is_calm=True
    ),
    "public-slice": Mutant("one-chunk", names={(node_auditor, "segment_slice"): _public_slice}),
    "one-verdict": Mutant("wrong-verdicts", names={(lifecycle, "settle"): _one_decides}),
    "one-unserved": Mutant("false-unserved", names={(lifecycle, "settle"): _one_is_unserved}),
    "no-deadline": Mutant("idle", names={(lifecycle, "_is_overdue"): lambda *args: False}),
    "late-heir": Mutant(
        "other-end", names={(lifecycle, "_is_overdue"): _any_is_overdue}, is_calm=True
    ),
    "drowsy": Mutant("none", names={(Agreement, "next_block_ms"): _wants_late}, is_calm=True),
    "double-pay": Mutant("none", names={(lifecycle, "_pay"): _pay_twice}),
    "refund-all": Mutant("none", names={(lifecycle, "_end"): _refund_all}),
    "slash-kept": Mutant("skip", names={(members, "_pay_slash"): _keep_slash}),
    "no-evidence": Mutant("equivocator", names={(execute, "punish"): _refuse}),
    "no-objection": Mutant(
        "selective+accomplice", names={(Chain, "_is_wanted"): lambda *args: True}, is_calm=True
    ),
    "no-patience": Mutant(
        "selective+accomplice", names={(Chain, "_is_ripe"): lambda *args: True}, is_calm=True
    ),
    "no-claim-in-veto": Mutant(
        "hush", names={(Chain, "_is_accused"): lambda *args: False}, is_calm=True
    ),
    "no-age": Mutant("none", names={(lifecycle, "finality_depth"): lambda *args: 0}, is_calm=True),
    "paid-in-advance": Mutant(
        "order-twice", names={(lifecycle, "credit_segment"): _credit_all}, is_calm=True
    ),
    "any-nonce": Mutant(
        "repeat", names={(execute, "_execute_transaction"): _any_nonce}, is_calm=True
    ),
}
"""By name; the simulator's tests kill every one."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Have the names of a mutant bound while inside."""
    names = MUTANTS[name].names if name else {}
    kept = {place: getattr(*place) for place in names}
    try:
        for (module, attribute), value in names.items():
            setattr(module, attribute, value)
        yield
    finally:
        for (module, attribute), value in kept.items():
            setattr(module, attribute, value)


__all__ = ["MUTANTS", "Mutant", "mutated"]
