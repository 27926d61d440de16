"""Training on a chain: send the job, wait for it, and take nothing that is not proven."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mlchain.client.client import Client
from mlchain.client.estimators.receipts import ChainReceipt
from mlchain.client.progress import bar, require_settled
from mlchain.client.signing import keys_folder, load_signer
from mlchain.client.submit import Terms, submit_job
from mlchain.client.training import TrainingJob
from mlchain.errors import Trap, VerificationFailed
from mlchain.ledger.unixfs import cid_of
from mlchain.ml_runtime import State, decode_plan
from mlchain.vm.families.jobs import fixed_seed, plan_id

LEAST_FEE = 100_000
"""Micro-credits offered for a job of which nobody said what it is worth."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job goes and who pays: a node, a key by name or file, and how long to be patient."""

    url: str
    key: str | None
    password_file: Path | None
    timeout_s: float


class Teller:
    """One line to a person, written over and over; silent if told so."""

    def __init__(self, verbose: bool | str) -> None:
        in_notebook = "ipykernel" in sys.modules
        self._speaks = verbose is True or (
            verbose == "auto" and (sys.stderr.isatty() or in_notebook)
        )
        self._said: list[str] = []
        self._width = 0

    def done(self, text: str) -> None:
        """Say what is done; it stays on the line."""
        self._said.append(text)
        self.now("")

    def now(self, text: str) -> None:
        """Say what goes on; the next word takes its place."""
        if self._speaks:
            line = "  ".join([*self._said, text]).rstrip()
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)

    def end(self) -> None:
        """End the line."""
        if self._speaks and self._width:
            sys.stderr.write("\n")


def train_on_chain(
    place: Place, job: TrainingJob, terms: Terms, verbose: bool | str = "auto"
) -> tuple[State, ChainReceipt]:
    """Return the trained state and the receipt, whose proof was checked and is of this very job.

    Raises:
        Trap: a step left the exact range, on every machine alike.
        Rejected, Unreachable, Timeout, NotFound, Locked, ConfigError: it was not done; says why.
        VerificationFailed: the node sent something else than what the chain agreed on.
    """
    teller = Teller(verbose)
    try:
        with Client(place.url) as client:
            return _train(client, place, job, terms, teller)
    finally:
        teller.end()


def _train(
    client: Client, place: Place, job: TrainingJob, terms: Terms, teller: Teller
) -> tuple[State, ChainReceipt]:
    chain_id = str(client.status()["chain_id"])
    _, key = load_signer(chain_id, place.key, keys_folder(), place.password_file)
    identity = submit_job(client, job, client.put_data(job.dataset), terms, key)
    teller.done("signed ✓")
    found = client.wait(identity, place.timeout_s, teller.now)
    teller.done(f"included #{found['height']} ✓")
    last = {}
    for last in client.follow(identity, place.timeout_s, teller.now):
        progress = last["progress"]
        teller.now("training " + bar(progress["done_chunks"], progress["total_chunks"]))
    if last["state"] == "trapped":
        raise Trap(
            f"job {identity[:8]}: training left the exact range, on every machine alike",
            "a smaller learning_rate, or fewer epochs",
        )
    require_settled(last)
    receipt = fetch_receipt(client, identity, job.dataset)
    _require_same(receipt, identity, job, terms)
    state = fetch_state(client, receipt, job.plan)
    teller.done(f"re-run {len(receipt.attested)}/{receipt.chunks} ✓")
    return state, receipt


def fetch_receipt(client: Client, identity: str, dataset: bytes = b"") -> ChainReceipt:
    """Return the receipt of a settled job, checked."""
    return ChainReceipt(client.receipt(identity), client.genesis(), dataset)


def fetch_state(client: Client, receipt: ChainReceipt, plan: bytes) -> State:
    """Return the trained state that a receipt proves.

    Raises:
        VerificationFailed: the node sent another one.
    """
    state = State.decode(client.model(receipt.job_id), decode_plan(plan))
    if state.digest().hex() != receipt.state_digest:
        raise VerificationFailed(f"{client.url} sent another state than the receipt proves")
    return state


def _require_same(receipt: ChainReceipt, identity: str, job: TrainingJob, terms: Terms) -> None:
    """The receipt is of the job that was sent, not of another one that is as well proven.

    Raises:
        VerificationFailed: says what differs.
    """
    proven, seed = receipt.job, fixed_seed(terms.seed) if terms.seed >= 0 else b""
    compared = {
        "id": (receipt.job_id, identity),
        "program": (proven.plan, plan_id(job.plan)),
        "dataset": (proven.dataset, cid_of(job.dataset)),
        "rows": ((proven.train_rows, proven.test_rows), (job.train_rows, job.test_rows)),
        "steps": ((proven.steps, proven.chunk), (job.steps, job.chunk)),
        "tier": (proven.tier, terms.tier),
        "seed": (proven.seed, seed),
    }
    for what, (theirs, ours) in compared.items():
        if theirs != ours:
            raise VerificationFailed(f"the receipt is of a job with another {what} than ours")
