"""A whole chain in one file: every block from the first, and the data and models its jobs speak of.

A CAR file (CARv1), so that IPFS tools can keep and check it too. Its one root is the manifest
(`Archive`), a file like all others in it: pages of blocks, and contents by id. `verify_archive`
believes none of it: the chain is executed again from the genesis whose hash the auditor knows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.client.ceremony import GenesisSignature, verify_signatures
from mlchain.client.checks import (
    Audit,
    check_attestations,
    check_job,
    check_leaves,
    check_metrics,
    check_program,
    check_states,
)
from mlchain.client.receipt import Check, JobRow
from mlchain.client.rerun import Progress
from mlchain.codec import ContentId, Record
from mlchain.consensus.work.sampling import draw_slice
from mlchain.errors import ConfigError, MlchainError, NotFound, VerificationFailed
from mlchain.ledger.block import Block, header_id
from mlchain.ledger.car import car_block, car_header, read_blocks, read_roots
from mlchain.ledger.commit import Commit, verify_commit
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.store import Store
from mlchain.ledger.unixfs import Part, add, cid_text
from mlchain.vm.execute import check_block
from mlchain.vm.families.jobs import JOBS, Job, JobState
from mlchain.vm.families.members import FAULTS, MEMBERS
from mlchain.vm.initial import write_genesis
from mlchain.vm.receipt import get_commits, make_receipt, miss_text, wanted_files
from mlchain.vm.registry import check_registry

MAX_MANIFEST_BYTES = 64 << 20
MAX_PAGE_BYTES = 16 << 20
PAGE_BYTES = 1 << 20
"""A page of blocks is closed when it has this many bytes."""

_PAGE = tuple[Block, ...]


class Archive(Record, frozen=True):
    """The manifest. `commit` certifies the last block; those before are certified by the next."""

    version: Annotated[int, Meta(ge=1, le=1)]
    genesis: Genesis
    signatures: Annotated[tuple[GenesisSignature, ...], Meta(max_length=4096)]
    last: Annotated[int, Meta(ge=1, le=2**40)]
    commit: Commit
    pages: Annotated[tuple[ContentId, ...], Meta(min_length=1, max_length=500_000)]
    files: Annotated[tuple[ContentId, ...], Meta(max_length=500_000)]
    """In the order of their ids, each once."""


@dataclass
class ChainReport:
    """What an audit of a whole chain found."""

    chain_id: str
    last: int
    seed: str
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    jobs: list[JobRow] = field(default_factory=list)
    disputes: list[str] = field(default_factory=list)
    chunks: int = 0
    drawn: int = 0
    rerun: int = 0

    @property
    def failed(self) -> Check | None:
        """The check that failed, None if all passed."""
        return next((check for check in self.checks if not check.passed), None)

    @property
    def absent(self) -> int:
        """Chunks of jobs whose data the archive lacks: `chunks` and `miss` leave them out."""
        return sum(row.chunks for row in self.jobs if row.note)

    def miss(self, one_in: int) -> str:
        """Return the chance that a forger of 1 chunk in `one_in` would not have been seen."""
        return miss_text(self.chunks, self.drawn, one_in)


def absent_text(count: int) -> str:
    """Return what an audit says of `count` slices of jobs whose data the archive lacks."""
    return (
        f"{count} slices could not be re-run: the archive lacks their data; "
        "p does not speak of them"
    )


def write_archive(
    target: BinaryIO,
    store: Store,
    content: ContentStore,
    signatures: tuple[GenesisSignature, ...] = (),
    on_block: Progress = lambda done, total: None,
) -> Archive:
    """Write the chain of a node, and as much content of finished jobs as is here.

    Raises:
        NotFound: the node has pruned blocks, or there is no block yet.
    """
    if store.kept > 1 or store.height == 0:
        raise NotFound(
            f"blocks below {store.kept} are not here" if store.height else "no block yet",
            "an archive needs a node that keeps all blocks",
        )
    pages: list[bytes] = []
    blocks: dict[bytes, bytes] = {}

    def keep(data: bytes) -> bytes:
        return add(data, blocks.__setitem__)

    page: list[Block] = []
    size = 0
    for height in range(1, store.height + 1):
        page.append(store.block(height))
        size += len(codec.encode(page[-1]))
        on_block(height, store.height)
        if size >= PAGE_BYTES or height == store.height:
            pages.append(keep(codec.encode(tuple(page))))
            page, size = [], 0
    found: dict[bytes, None] = {}
    for name in files_of(store):
        if content.has(name):
            found[name] = None
            blocks.update(content.blocks(name))
    archive = Archive(
        1, store.genesis, signatures, store.height, store.commit(store.height), tuple(pages),
        tuple(sorted(found)),
    )  # fmt: skip
    target.write(car_header(keep(codec.encode(archive))))
    for cid, block in blocks.items():
        target.write(car_block(cid, block))
    return archive


def files_of(store: Store) -> list[bytes]:
    """Return the content ids of what an audit of the finished jobs of a chain reads."""
    found: dict[bytes, None] = {}
    for job_id, job in _finished(store):
        found |= dict.fromkeys(wanted_files(job, get_commits(make_receipt(store, job_id))))
    return list(found)


def is_archive(path: Path) -> bool:
    """Tell whether a file claims to be a CAR file, by its name or by how it begins.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return path.suffix == ".car" or b"\xa2\x65roots" in head


def read_archive(source: BinaryIO) -> tuple[Archive, ContentStore, int]:
    """Return the manifest, all blocks by id, and how many there are; each is compared with its id.

    Raises:
        VerificationFailed: anything in the file is not as it was written.
    """
    store = ContentStore(MemoryKeyValue())
    try:
        (root,) = roots if len(roots := read_roots(source)) == 1 else (b"",)
        seen: dict[bytes, None] = {}
        for cid, block in read_blocks(source):
            if cid in seen:
                raise VerificationFailed(f"block {cid_text(cid)} stands twice")
            seen[cid] = None
            store.put_block(cid, block)
        archive = codec.decode(Archive, store.get(root, MAX_MANIFEST_BYTES), MAX_MANIFEST_BYTES)
        if list(archive.files) != sorted(set(archive.files)):
            raise VerificationFailed("files are not in order")
        if len(set(archive.pages)) < len(archive.pages):
            raise VerificationFailed("a page of blocks stands twice")
        parts: dict[Part, None] = {}
        for name in (root, *archive.pages, *archive.files):
            for cid, _ in store.blocks(name, parts):
                seen.pop(cid, None)
        if seen:
            raise VerificationFailed(f"block {cid_text(next(iter(seen)))} belongs to nothing")
    except MlchainError as error:
        raise VerificationFailed(f"not an archive as it was written: {error.message}") from error
    return archive, store, 1 + len(archive.pages) + len(archive.files)


def verify_archive(
    source: BinaryIO,
    genesis_hash: bytes,
    *,
    slices: int | None,
    seed: str = "",
    on_check: Callable[[Check], None] = lambda check: None,
    on_step: Progress = lambda done, total: None,
) -> ChainReport:
    """Check a whole chain from its genesis, then re-run `slices` chunks over all jobs (None: all).

    Raises:
        GenesisError: this installation computes by other tables than the chain.
    """
    report = ChainReport("", 0, seed or secrets.token_hex(16))

    def tell(name: str, passed: bool, text: str) -> bool:
        report.checks.append(Check(name, passed, text))
        on_check(report.checks[-1])
        return passed

    try:
        archive, content, files = read_archive(source)
    except VerificationFailed as error:
        tell("data", False, error.message)
        return report
    genesis = archive.genesis
    report.chain_id, report.last = genesis.chain_id, archive.last
    try:
        signed = _check_genesis(archive, genesis_hash)
    except MlchainError as error:
        tell("genesis", False, error.message)
        return report
    members = len(genesis.members)
    tell("genesis", True, f"{genesis.hash.hex()}  {len(signed)} of {members} members signed")
    if len(signed) < members:
        report.notes.append(f"{members - len(signed)} of {members} members did not sign genesis")
    check_registry(genesis)
    try:
        store = _replay(archive, content, on_step)
    except _Unlinked as error:
        tell("headers", False, error.message)
        return report
    except MlchainError as error:
        tell("state", False, error.message)
        return report
    n = archive.last
    changes = len(store.set_changes) - 1
    tell(
        "headers", True, f"{n} of {n} linked, each signed by more than 2/3 of the power"
        + (f", who changed {changes} times" if changes else ""),
    )  # fmt: skip
    tell("state", True, f"{n} of {n} state roots recomputed from genesis")
    tell("data", True, f"{files} of {files} files match their ids")
    report.disputes = list(_disputes(store))
    try:
        audits = _open_jobs(store, content, report)
        text = _rerun(report, audits, slices, on_step)
    except MlchainError as error:
        tell("re-run", False, error.message)
        return report
    tell("re-run", True, text)
    return report


class _Unlinked(VerificationFailed):
    """A block that does not follow the one before, or that nobody certified."""


def _check_genesis(archive: Archive, genesis_hash: bytes) -> list[str]:
    found = archive.genesis.hash
    if found != genesis_hash:
        raise VerificationFailed(
            f"the archive is of chain {found.hex()[:16]}, you named {genesis_hash.hex()[:16]}"
        )
    return verify_signatures(archive.genesis, archive.signatures)


def _pages(archive: Archive, content: ContentStore) -> Iterator[Block]:
    for page in archive.pages:
        yield from codec.decode(_PAGE, content.get(page, MAX_PAGE_BYTES), MAX_PAGE_BYTES)


def _replay(archive: Archive, content: ContentStore, on_step: Progress) -> Store:
    """Execute every block on the state before it; each must be certified by those who then voted.

    Raises:
        _Unlinked: a link or a certificate does not hold.
        MlchainError: executing a block gives something else than its header says.
    """
    genesis = archive.genesis
    store = Store.create_or_open(
        MemoryKeyValue(), genesis, lambda state: write_genesis(state, genesis)
    )
    waiting: Block | None = None
    blocks = _pages(archive, content)
    for height in range(1, archive.last + 1):
        block = waiting or next(blocks, None)
        waiting = next(blocks, None)
        last = height == archive.last
        if block is None or (waiting is None) != last:
            raise _Unlinked(f"blocks 1 to {archive.last} were promised, it is another number")
        commit = archive.commit if waiting is None else waiting.body.last_commit
        follow(store, block, commit)
        on_step(height, archive.last)
    return store


def follow(store: Store, block: Block, commit: Commit | None) -> None:
    """Put one more block on a chain: linked, certified by those who then vote, and executed.

    Raises:
        VerificationFailed: a link or the certificate does not hold.
        MlchainError: executing it gives something else than its header says.
    """
    _check_link(store, block, commit)
    assert commit is not None, "was just checked"
    state = store.state()
    outcome = check_block(store.head, store.head_id, state, store.genesis, block)
    store.append(block, commit, state, outcome.receipts, outcome.validators)


def _check_link(store: Store, block: Block, commit: Commit | None) -> None:
    header, height = block.header, store.height + 1
    if header.height != height or header.parent != store.head_id:
        raise _Unlinked(f"block {height} does not follow block {store.height}")
    if commit is None:
        raise _Unlinked(f"block {height} has no certificate")
    try:
        voters = store.validators_after(store.height)
        verify_commit(commit, store.genesis.chain_id, voters, height, header_id(header))
    except MlchainError as error:
        raise _Unlinked(f"block {height}: {error.message}") from error


def _finished(store: Store) -> Iterator[tuple[bytes, Job]]:
    for (job_id,), job in JOBS.items(store.state()):
        if job.state in (JobState.SETTLED, JobState.TRAPPED):
            yield job_id, job


def _open_jobs(store: Store, content: ContentStore, report: ChainReport) -> list[Audit]:
    """Check what the archive says of every finished job; return those whose data are here.

    Raises:
        VerificationFailed: names the job.
    """

    def find(name: bytes) -> bytes | None:
        return content.get(name) if content.has(name) else None

    audits = []
    for job_id, job in _finished(store):
        audit = Audit(make_receipt(store, job_id), store.genesis, find)
        # `make_receipt` proves under our own root; who voted when is in our own store.
        audit.sets = [(since, store.validators_after(since)) for since in store.set_changes]
        name = f"{job_id.hex()[:8]} {job.name}"
        row = JobRow(job_id, job.name, sum(c.count + bool(c.trap) for c in audit.commits))
        try:
            for check in (
                check_job, check_program, check_leaves, check_attestations, check_states,
                check_metrics,
            ):  # fmt: skip
                check(audit)
        except NotFound as error:
            row.note = error.message
            report.notes.append(f"job {name}: {error.message.replace('receipt', 'archive')}")
        except MlchainError as error:
            raise VerificationFailed(f"job {name}: {error.message}") from error
        else:
            audits.append(audit)
        row.attested = audit.attested
        report.jobs.append(row)
    return audits


def _rerun(report: ChainReport, audits: list[Audit], slices: int | None, on_step: Progress) -> str:
    """Run chunks again, drawn over all jobs whose data are here."""
    rows = {row.job_id: row for row in report.jobs}
    total = sum(audit.rerun.chunks for audit in audits)
    size = total if slices is None else min(slices, total)
    digest = crypto.digest("mlchain/audit-seed", report.seed.encode())
    drawn = draw_slice(digest, audits[0].genesis.hash, total, size) if total else ()
    report.chunks, report.drawn = total, len(drawn)
    first = done = 0
    for audit in audits:
        row, stop = rows[audit.receipt.job_id], first + audit.rerun.chunks
        row.drawn = tuple(chunk - first for chunk in drawn if first <= chunk < stop)
        first = stop
        before = partial(lambda start, d, t: on_step(start + d, start + t), done)
        try:
            audit.rerun.run(row.drawn, before)
        except MlchainError as error:
            raise VerificationFailed(f"job {row.name}: {error.message}") from error
        finally:
            row.compared = tuple(sorted(audit.rerun.compared))
            row.differs = audit.rerun.differs
            report.rerun += len(row.compared)
        done = report.rerun
    if not size:
        return f"nothing, of {total}"
    return f"{size} of {size} equal, of {total}   seed {report.seed[:8]}…, yours: --seed"


def _disputes(store: Store) -> Iterator[str]:
    """Yield what members were found to have done wrong, in the order of the blocks."""
    state = store.state()
    for (height, _), fault in FAULTS.items(state):
        member = MEMBERS.get(state, fault.offender)
        name = member.name if member else fault.offender.hex()[:16]
        where = ""
        if any(fault.job):
            where = f" job {fault.job.hex()[:8]} segment {fault.segment} slice {fault.chunk}"
        yield f"#{height}{where}  {name}: {fault.kind}"
