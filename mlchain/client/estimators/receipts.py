"""`receipt_`: how a fitted model came about, and re-running that.

A fit on a chain leaves the chain's receipt, whose proof was checked when it came; a fit in this
process leaves the digests of its own run. Either can be run again by whoever has it.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlchain import codec, crypto
from mlchain.client import receipt as auditing
from mlchain.client.checks import Audit, check_validators
from mlchain.client.estimators import draw
from mlchain.client.estimators.curves import Curves, run_curves
from mlchain.client.estimators.local import Trained
from mlchain.client.receipt import Check, read_receipt, verify_receipt
from mlchain.client.strip import DIFFERS, EQUAL, UNSEEN
from mlchain.client.userfile import write_file
from mlchain.consensus.work.sampling import draw_slice
from mlchain.errors import ConfigError, VerificationFailed
from mlchain.ledger.content import cid_of
from mlchain.ledger.genesis import load_genesis, parse_genesis
from mlchain.ml_runtime import Trainer
from mlchain.vm.families.jobs import Job, Segment, reviewed_offsets, segment_slice
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Receipt, miss_text

DEFAULT_SLICES = auditing.DEFAULT_SLICES


@dataclass(frozen=True, slots=True)
class Verified:
    """What re-running found: `equal` of `chunks` slices were run, `drawn` of them chosen blindly.

    `checks` are those of the proof that came before; none for a run of this process.
    """

    equal: int
    chunks: int
    drawn: int
    seconds: float
    seed: str
    checks: tuple[Check, ...] = ()

    def miss(self, one_in: int) -> str:
        """Return the chance that a forger of 1 slice in `one_in` would not have been seen."""
        return miss_text(self.chunks, self.drawn, one_in)

    def __repr__(self) -> str:
        text = f"{self.equal} of {self.chunks} slices equal, {self.seconds:.1f} s"
        if self.equal < self.chunks:
            text += f"; had 1 in 100 been forged, missed with p = {self.miss(100)}"
        return f"Verified({text})"


class _Rerunnable(ABC):
    """What both kinds of receipt do with their runs."""

    @property
    @abstractmethod
    def chunks(self) -> int:
        """Slices of the run."""

    @property
    @abstractmethod
    def strip(self) -> str:
        """One mark for each slice: █ re-run, · not sampled, x differs."""

    @abstractmethod
    def story(self) -> draw.Story:
        """Return what there is to say, for people."""

    @abstractmethod
    def trainer(self) -> Trainer:
        """Return what trains the same once more."""

    @cached_property
    def curves(self) -> Curves:
        """Loss and training score after (at most 100) slices; runs everything again, once."""
        return run_curves(self.trainer())

    def plot(self, ax: Any = None) -> Any:
        """Draw loss and training score, with the slices that were re-run shaded; return the figure.

        Runs the training again, once, for a chain keeps neither.

        Raises:
            ConfigError: the extra `plot` (matplotlib) is not installed.
        """
        return draw.plot(self.story(), self.curves, ax)

    def _repr_html_(self) -> str:
        return draw.html(self.story())

    def __repr__(self) -> str:
        return draw.line(self.story())


class LocalReceipt(_Rerunnable):
    """A run of this process: the digest after every slice, and all that it takes to run it again.

    Nobody else has checked it; `verify` does, on whatever machine it was brought to.
    """

    def __init__(self, trained: Trained, name: str) -> None:
        self._trained, self._name = trained, name
        self._seen: dict[int, str] = {}

    @property
    def chunks(self) -> int:
        """Slices of the run."""
        return len(self._trained.leaves)

    @property
    def strip(self) -> str:
        """One mark for each slice: █ re-run by `verify`, · not sampled, x differs."""
        return "".join(self._seen.get(chunk, UNSEEN) for chunk in range(self.chunks))

    def verify(self, slices: int | str = "all", *, seed: str = "") -> Verified:
        """Run `slices` of the run again, drawn by `seed`, and those on the way to them.

        Raises:
            VerificationFailed: names the first slice that came out otherwise.
        """
        seed, started = seed or secrets.token_hex(16), time.monotonic()
        drawn = _draw(self.chunks, slices, seed)
        trainer, leaves = self.trainer(), self._trained.leaves
        state, last = trainer.initial_state(), max(drawn, default=-1)
        for chunk in range(last + 1):
            state = trainer.run_chunk(chunk, state)
            is_equal = state.digest() == leaves[chunk]
            self._seen[chunk] = EQUAL if is_equal else DIFFERS
            if not is_equal:
                raise VerificationFailed(f"slice {chunk} comes out otherwise than in {self._name}")
        return Verified(last + 1, self.chunks, len(drawn), time.monotonic() - started, seed)

    def story(self) -> draw.Story:
        """Return what there is to say, for people."""
        again = sum(mark == EQUAL for mark in self._seen.values())
        return draw.Story(
            self._name,
            DIFFERS if DIFFERS in self.strip else UNSEEN,
            "fitted in this process",
            (
                ("checked by", "nobody else; verify() runs it again, here or elsewhere"),
                ("run again", f"{again} of {self.chunks} slices, every byte equal"),
                ("state", self._trained.leaves[-1].hex()),
            ),
            self.strip,
        )

    def trainer(self) -> Trainer:
        """Return the run, ready to be run again."""
        done = self._trained
        return Trainer(done.task, done.dataset, done.seed)


class ChainReceipt(_Rerunnable):
    """The receipt of a job on a chain. Its proof is checked when it is made, offline.

    `genesis` is the text of the chain's genesis file. Whoever got that from a node trusts this
    node to have named the right chain: compare `genesis_hash` with the one you know.
    """

    def __init__(self, data: bytes, genesis: str, dataset: bytes = b"") -> None:
        """Check the proof in `data`; `dataset` is needed where the receipt is without it.

        Raises:
            VerificationFailed: names the check that did not pass.
        """
        self.data, self._genesis, self._dataset = data, genesis, dataset
        self._seen: dict[int, str] = {}
        self._certified = self._check(0, "", lambda done, total: None)

    @staticmethod
    def load(path: str | Path, genesis: str | Path) -> ChainReceipt:
        """Return the receipt in a file, checked against a genesis file."""
        file = Path(genesis)
        load_genesis(file)
        return ChainReceipt(codec.encode(read_receipt(Path(path))), file.read_text())

    def save(self, path: str | Path) -> None:
        """Write the receipt to a file; `mlchain audit FILE` checks it."""
        write_file(Path(path), self.data)

    @property
    def job_id(self) -> str:
        """The job."""
        return self._audit.receipt.job_id.hex()

    @property
    def job(self) -> Job:
        """The job's record."""
        return self._audit.job

    @property
    def block(self) -> int:
        """The block under which all is proven."""
        return self._audit.receipt.header.height

    @property
    def genesis_hash(self) -> str:
        """The chain."""
        return self._audit.genesis.hash.hex()

    @property
    def state_digest(self) -> str:
        """Digest of the trained state."""
        return self._audit.commits[-1].end.hex()

    @property
    def chunks(self) -> int:
        """Slices of the job."""
        return self._audit.rerun.chunks

    @cached_property
    def attested(self) -> tuple[int, ...]:
        """The slices that validators re-ran for their votes, drawn or dealt."""
        return self._over_segments(
            lambda segment: [
                offset
                for vote in segment.attestations
                for offset in segment_slice(self.job, segment, vote.validator, vote.ticket)
            ]
        )

    @cached_property
    def reviewed(self) -> tuple[int, ...]:
        """The slices that validators re-ran later, when nothing else was due."""
        return self._over_segments(reviewed_offsets)

    @property
    def validators(self) -> tuple[int, int]:
        """How many validators attested the last segment, and how many there were."""
        audit = self._audit
        check_validators(audit)  # fills the sets; it passed before
        last = audit.segments[-1]
        return len(last.attestations), len(audit.set_after(last.hard_height - 1))

    @property
    def strip(self) -> str:
        """One mark for each slice: █ re-run, by validators or by us, · not sampled, x differs."""
        marks = dict.fromkeys((*self.attested, *self.reviewed), EQUAL) | self._seen
        return "".join(marks.get(chunk, UNSEEN) for chunk in range(self.chunks))

    def miss(self, one_in: int) -> str:
        """Return the chance that validators would have missed a forger of 1 slice in `one_in`."""
        return miss_text(self.chunks, len(self.attested), one_in)

    def verify(
        self,
        slices: int | str = DEFAULT_SLICES,
        *,
        seed: str = "",
        genesis: str | Path | None = None,
        on_slice: Callable[[int, int], None] = lambda done, total: None,
    ) -> Verified:
        """Check the whole proof again, then re-run `slices` ("all", or how many) of our choice.

        The choice follows from `seed`, by default from the operating system. `genesis` is a
        genesis file to check against instead of the node's.

        Raises:
            VerificationFailed: names the check, or the first slice that differs.
            NotFound: the receipt came without its dataset.
        """
        if genesis is not None and load_genesis(Path(genesis)).hash.hex() != self.genesis_hash:
            raise VerificationFailed(f"the receipt is of chain {self.genesis_hash[:16]}, not yours")
        return self._check(None if slices == "all" else _count(slices), seed, on_slice)

    def story(self) -> draw.Story:
        """Return what there is to say, for people."""
        audit, by, seen = self._audit, self.validators, len(self.attested)
        differs = DIFFERS in self.strip
        return draw.Story(
            audit.job.name,
            DIFFERS if differs else EQUAL,
            "differs" if differs else "verified",
            (
                ("block", f"#{self.block}"),
                ("re-run", f"{seen} of {self.chunks} slices"),
                ("by", f"{by[0]} of {by[1]} validators"),
                ("1 in 10 forged", f"missed with p = {self.miss(10)}"),
                ("1 in 100 forged", f"missed with p = {self.miss(100)}"),
                ("job", self.job_id),
                ("state", self.state_digest),
                ("chain", f"{audit.genesis.chain_id} {self.genesis_hash}"),
            ),
            self.strip,
        )

    def __getstate__(self) -> dict[str, Any]:
        kept = ("data", "_genesis", "_dataset", "_seen", "_certified")
        return {name: self.__dict__[name] for name in kept}

    @cached_property
    def _audit(self) -> Audit:
        receipt = codec.decode(Receipt, self.data, MAX_RECEIPT_BYTES)
        return Audit(receipt, parse_genesis(self._genesis.encode()), self._find)

    def _over_segments(self, offsets: Callable[[Segment], Sequence[int]]) -> tuple[int, ...]:
        """Return the slices of the job, each once, in order, from offsets in each segment."""
        found, first = dict[int, None](), 0
        for segment, commit in zip(self._audit.segments, self._audit.commits, strict=True):
            found |= dict.fromkeys(first + offset for offset in offsets(segment))
            first += commit.count
        return tuple(sorted(found))

    def _find(self, content: bytes) -> bytes | None:
        return self._dataset if self._dataset and cid_of(self._dataset) == content else None

    def _check(
        self, slices: int | None, seed: str, on_slice: Callable[[int, int], None]
    ) -> Verified:
        started = time.monotonic()
        audit = self._audit
        report = verify_receipt(
            audit.receipt, audit.genesis,
            slices=slices, seed=seed, find_file=self._find, on_chunk=on_slice,
        )  # fmt: skip
        self._seen |= dict.fromkeys(report.compared, EQUAL)
        if report.differs is not None:
            self._seen[report.differs] = DIFFERS
        if report.failed:
            raise VerificationFailed(f"{report.failed.name}: {report.failed.text}")
        return Verified(
            report.rerun, report.chunks, report.drawn, time.monotonic() - started, report.seed,
            tuple(report.checks),
        )  # fmt: skip

    def trainer(self) -> Trainer:
        """Return the job, ready to be run again."""
        return self._audit.trainer


def _draw(chunks: int, slices: int | str, seed: str) -> tuple[int, ...]:
    """Return the slices to run again."""
    count = chunks if slices == "all" else _count(slices)
    return draw_slice(crypto.digest("mlchain/audit-seed", seed.encode()), b"", chunks, count)


def _count(slices: Any) -> int:
    if isinstance(slices, bool) or not isinstance(slices, int) or slices < 0:
        raise ConfigError(f"slices={slices!r}", 'a whole number, or "all"')
    return slices
