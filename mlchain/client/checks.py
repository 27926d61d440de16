"""The checks of a receipt, each resting on those before it, and the receipt under examination.

Every check is a function of the audit that returns what it found, in words, and raises
`VerificationFailed` (or what a decoder raises) if the receipt does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from mlchain import codec
from mlchain.client.rerun import Rerun
from mlchain.consensus.work.commitment import SegmentCommit, segment_root
from mlchain.consensus.work.tickets import Reveal, hash_down
from mlchain.errors import NotFound, VerificationFailed
from mlchain.ledger.block import Header, header_id
from mlchain.ledger.commit import Commit, verify_commit
from mlchain.ledger.content import cid_of, cid_text
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.merkle import verify_proof
from mlchain.ledger.validators import ValidatorSet
from mlchain.ml_runtime import Dataset, Task, Trainer, check_plan, decode_plan
from mlchain.vm.accusation import Accusation
from mlchain.vm.families.jobs import (
    JOBS,
    PLANS,
    SEGMENTS,
    Job,
    JobState,
    PlanRecord,
    Segment,
    SegmentState,
    plan_id,
    reviewed_offsets,
    segment_slice,
)
from mlchain.vm.families.members import VALIDATORS, ValidatorRecord
from mlchain.vm.families.models import MODELS, Model
from mlchain.vm.families.renewal import RENEWED, Renewed
from mlchain.vm.prediction_receipt import PredictionReceipt
from mlchain.vm.receipt import Proven, Receipt, find_newcomers, wanted_files

FindFile = Callable[[bytes], bytes | None]
"""Gives the bytes of a content id that a receipt does not carry, None if unknown."""


class Standing:
    """How a file stands on a chain: which of its headers are certified, and by whom."""

    def __init__(
        self, certified: Receipt | Accusation | PredictionReceipt, genesis: Genesis
    ) -> None:
        self.certified, self.genesis = certified, genesis
        self.sets = [(0, genesis.validators())]

    def set_after(self, height: int) -> ValidatorSet:
        """Return who votes on the block after `height`."""
        return next(members for since, members in reversed(self.sets) if since <= height)


class Audit(Standing):
    """One receipt under examination: what the checks share. Read only what a check has proven."""

    def __init__(self, receipt: Receipt, genesis: Genesis, find_file: FindFile) -> None:
        super().__init__(receipt, genesis)
        self.receipt = receipt
        self._find_file = find_file
        self._files = {file.content: file.data for file in receipt.files}
        self.attested: dict[str, int] = {}
        """Chunks that each validator said it re-ran, by name; filled by `check_attestations`."""

    @cached_property
    def job(self) -> Job:
        """The job's record."""
        return codec.decode(Job, self.receipt.job.value)

    @cached_property
    def segments(self) -> list[Segment]:
        """The records of the HARD segments."""
        return [codec.decode(Segment, proven.value) for proven in self.receipt.segments]

    @cached_property
    def commits(self) -> list[SegmentCommit]:
        """The commits of the segments."""
        found = [segment.commit for segment in self.segments if segment.commit]
        require(len(found) == len(self.segments), "a HARD segment without a commit")
        return found

    @cached_property
    def leaves(self) -> list[tuple[bytes, ...]]:
        """The end digests of every segment's chunks."""
        found = []
        for commit in self.commits:
            data = self.need(commit.leaves_content, "a leaf list")
            found.append(tuple(data[i : i + 32] for i in range(0, len(data), 32)))
        return found

    @cached_property
    def trainer(self) -> Trainer:
        """The job, ready to run."""
        plan = codec.decode(PlanRecord, self.receipt.plan.value).plan
        job = self.job
        task = Task(plan, job.steps, job.chunk, job.train_rows, job.test_rows)
        dataset = Dataset.decode(self.need(job.dataset, "the dataset"))
        return Trainer(task, dataset, job.order_seed)

    @cached_property
    def rerun(self) -> Rerun:
        """The chunks of the job, to run again."""
        leaves = [digest for digests in self.leaves for digest in digests]
        return Rerun(
            self.trainer, self.commits, leaves, lambda i: self.get(self.commits[i].end_content)
        )

    def get(self, content: bytes) -> bytes | None:
        """Return a file from the receipt or from beside it; compared with its id either way."""
        data = self._files.get(content)
        if data is None and (data := self._find_file(content)) is not None:
            require(cid_of(data) == content, f"other bytes than {cid_text(content)} names")
        return data

    def need(self, content: bytes, what: str) -> bytes:
        """Return a file that an audit cannot do without.

        Raises:
            NotFound: it is nowhere.
        """
        data = self.get(content)
        if data is None:
            raise NotFound(
                f"{what} {cid_text(content)} is not in the receipt",
                "fetch it from any node (/v1/data/…) into a folder, and give --data FOLDER",
            )
        return data


# ---- the checks, in their order -----------------------------------------------------------------


def check_genesis_hash(audit: Standing) -> str:
    """The receipt is of the chain that the auditor's genesis file starts."""
    ours, theirs = audit.genesis.hash.hex(), audit.certified.genesis.hex()
    require(ours == theirs, f"the receipt is of chain {theirs[:16]}, the file of {ours[:16]}")
    return f"{ours}  {audit.genesis.chain_id}, {len(audit.genesis.validators())} validators"


def check_validators(audit: Standing) -> str:
    """Every change of the validators was certified by those before it."""
    for change in audit.certified.changes:
        header, (since, present) = change.header, audit.sets[-1]
        require(header.height > since, "changes of the validators are not in order")
        _require_certified(audit, change.header, change.commit, present)
        keys = [validator.key for validator in change.validators]
        require(keys == sorted(set(keys)), "a validator set is not in key order")
        following = ValidatorSet(change.validators)
        require(following.hash == header.next_validators_hash, "not the set that was decided")
        audit.sets.append((header.height, following))
    if len(audit.sets) == 1:
        return "unchanged since genesis"
    blocks = ", ".join(f"#{height}" for height, _ in audit.sets[1:])
    return f"changed in {blocks}, each time certified by those before"


def check_certificate(audit: Standing) -> str:
    """A quorum of the validators signed the block that everything else is proven under."""
    header, commit = audit.certified.header, audit.certified.commit
    since, members = audit.sets[-1]
    require(header.height > since, "the validators change after the block")
    _require_certified(audit, header, commit, members)
    return (
        f"block #{header.height} {header_id(header).hex()[:16]}, signed by "
        f"{len(commit.signatures)} of {len(members)}"
    )


def check_state(audit: Audit) -> str:
    """Job, program, model and segments stand in the state of that block."""
    receipt = audit.receipt
    require_proven(audit, JOBS.key(receipt.job_id), receipt.job)
    require_proven(audit, PLANS.key(audit.job.plan), receipt.plan)
    if receipt.model:
        require_proven(audit, MODELS.key(receipt.job_id), receipt.model)
    for index, proven in enumerate(receipt.segments):
        require_proven(audit, SEGMENTS.key(receipt.job_id, index), proven)
    count = 2 + len(receipt.segments) + bool(receipt.model)
    return f"{count} records proven under root {receipt.header.state_root.hex()[:16]}"


def check_job(audit: Audit) -> str:
    """The job ended, its segments follow one another, and the model is what the last one left."""
    receipt, job, commits = audit.receipt, audit.job, audit.commits
    trapped = job.state == JobState.TRAPPED
    require(trapped or job.state == JobState.SETTLED, "the job has not ended with a result")
    require(len(commits) == job.hard > 0, "a segment is missing, or one too many")
    require(trapped == bool(commits[-1].trap), "the last segment does not say how the job ended")
    require(trapped or job.hard == job.segments, "the job has more segments")
    before = commits[0].start
    for index, (segment, commit) in enumerate(zip(audit.segments, commits, strict=True)):
        place = commit.job, commit.segment, commit.attempt
        require(place == (receipt.job_id, index, segment.attempt), "a commit of another segment")
        require(segment.state == SegmentState.HARD, f"segment {index} is not HARD")
        require(commit.start == before, f"segment {index} does not start where the last ended")
        whole = commit.count == job.segment_range(index)[1]
        is_end = trapped and index == len(commits) - 1
        require(whole != is_end and (is_end or not commit.trap), f"segment {index} is cut short")
        before = commit.end
    require(bool(receipt.model) != trapped, "a settled job has a model, a trapped one has none")
    if receipt.model:
        model, last = codec.decode(Model, receipt.model.value), commits[-1]
        found = model.plan, model.dataset, model.content, model.state, model.metrics
        expected = job.plan, job.dataset, last.end_content, last.end, last.metrics
        require(found == expected, "the model is not what the last segment left")
    return f"{receipt.job_id.hex()[:8]} {job.name}, {_describe_end(job, commits[-1])}"


def check_program(audit: Audit) -> str:
    """The program is the one the job names, and passes the runtime's own checks."""
    data = codec.decode(PlanRecord, audit.receipt.plan.value).plan
    require(plan_id(data) == audit.job.plan, "not the program that the job names")
    plan = decode_plan(data)
    check_plan(plan)
    return f"{plan.model}, {plan.features} features, {len(plan.step.nodes)} ops a step"


def check_data(audit: Audit) -> str:
    """Every file is what its content id names, and the runtime can read the dataset."""
    files = audit.receipt.files
    names = [file.content for file in files]
    require(names == sorted(set(names)), "files are not in order")
    allowed = wanted_files(audit.job, audit.commits)
    require(all(name in allowed for name in names), "a file that the job does not speak of")
    for file in files:
        require(cid_of(file.data) == file.content, f"{cid_text(file.content)} has other bytes")
    rows = audit.trainer.dataset.rows
    return f"{len(files)} of {len(files)} files match their ids; {rows} rows in the dataset"


def check_leaves(audit: Audit) -> str:
    """Each segment's list of chunk digests makes the root its worker committed to."""
    job, chain_id = audit.job, audit.genesis.chain_id
    for index, commit in enumerate(audit.commits):
        segment, digests = audit.segments[index], audit.leaves[index]
        first, _ = job.segment_range(index)
        root = segment_root(
            chain_id, commit.job, index, commit.attempt, segment.worker, first, digests
        )
        is_whole = len(digests) == commit.count and all(len(digest) == 32 for digest in digests)
        require(is_whole and root == commit.leaf_root, f"segment {index}: another leaf root")
        end = digests[-1] if digests else commit.start
        require(end == commit.end, f"segment {index}: its last chunk is not its end")
    return f"{sum(commit.count for commit in audit.commits)} chunks under their committed roots"


def check_attestations(audit: Audit) -> str:
    """A quorum attested each segment, with tickets of the chains that they had registered."""
    names, chains = _find_chains(audit)
    shown: dict[tuple[bytes, int], dict[int, bytes]] = {}
    rerun = seen = 0
    for index, segment in enumerate(audit.segments):
        keys = [attested.validator for attested in segment.attestations]
        height, length = segment.commit_height, audit.genesis.params.ticket_heights
        in_order = 0 < height < segment.hard_height <= audit.receipt.header.height
        require(in_order, f"segment {index}: impossible heights")
        voters = audit.set_after(segment.hard_height - 1)
        weight = sum(voters.weight(key) for key in keys)
        fair = len(set(keys)) == len(keys) and segment.worker not in keys
        require(fair and weight >= voters.quorum, f"segment {index}: no quorum attested it")
        union: dict[int, None] = {}
        for attested in segment.attestations:
            key, ticket = attested.validator, attested.ticket
            starts = [s for s in sorted(chains.get(key, ())) if s < height <= s + length]
            why = f"attested by a stranger: no chain of {key.hex()[:16]} holds height {height}"
            require(bool(starts), f"segment {index}: {why}")
            first = shown.setdefault((key, starts[0]), {}).setdefault(height, ticket)
            require(ticket == first, f"segment {index}: two tickets for one height")
            drawn = segment_slice(audit.job, segment, key, ticket)
            union |= dict.fromkeys(drawn)
            audit.attested[names[key]] = audit.attested.get(names[key], 0) + len(drawn)
        rerun += len(union)
        seen += len(union | dict.fromkeys(reviewed_offsets(segment)))
    for (key, start), tickets in shown.items():
        _require_chain(key, chains[key][start], tickets)
    renewals = [
        (each.validator, codec.decode(Renewed, each.proven.value).start)
        for each in audit.receipt.renewed
    ]
    require(all(each in shown for each in renewals), "hash chains that hold no ticket shown here")
    by = len({key for key, _ in shown})
    total = sum(commit.count + bool(commit.trap) for commit in audit.commits)
    later = f"; {seen} with what was reviewed since" if seen > rerun else ""
    how = "as they were drawn or dealt"
    return f"{rerun} of {total} chunks attested, by {by} validators, {how}{later}"


def check_states(audit: Audit) -> str:
    """The states between segments are the committed ones, and the first is the initial one."""
    count = audit.rerun.check_boundaries()
    return f"{count} of {len(audit.commits) + 1} states at segment ends at hand, digests equal"


def check_metrics(audit: Audit) -> str:
    """Evaluating the final state gives the score that was committed."""
    metrics = audit.commits[-1].metrics
    if metrics is None:
        return "none: the job names no test rows, or it trapped"
    found = audit.trainer.evaluate(audit.rerun.final_state())
    require(found == metrics, f"the receipt says {metrics}, evaluating gives {found}")
    return str(metrics)


CHECKS: tuple[tuple[str, Callable[[Audit], str]], ...] = (
    ("genesis", check_genesis_hash),
    ("validators", check_validators),
    ("certificate", check_certificate),
    ("state", check_state),
    ("job", check_job),
    ("program", check_program),
    ("data", check_data),
    ("leaves", check_leaves),
    ("attestations", check_attestations),
    ("states", check_states),
    ("metrics", check_metrics),
)
"""Name and check, in the order in which they rest on each other. Re-running chunks comes last."""


def require(holds: bool, why_not: str) -> None:
    """Raise VerificationFailed unless something holds."""
    if not holds:
        raise VerificationFailed(why_not)


def _require_certified(
    audit: Standing, header: Header, commit: Commit, voters: ValidatorSet
) -> None:
    """The header is of our chain, and a quorum of `voters` decided it."""
    require(header.chain_id == audit.genesis.chain_id, f"block of chain {header.chain_id!r}")
    require(header.validators_hash == voters.hash, f"block {header.height}: other validators")
    verify_commit(commit, header.chain_id, voters, header.height, header_id(header))


def require_proven(audit: Standing, key: bytes, proven: Proven) -> None:
    """The record stands under its key in the state of the block that was certified."""
    verify_proof(audit.certified.header.state_root, key, proven.value, proven.proof)


def _find_chains(audit: Audit) -> tuple[dict[bytes, str], dict[bytes, dict[int, Reveal]]]:
    """Return the names of all who may have attested, and a known element of each of their ticket
    chains by its start, both by key.

    The genesis file has the tips of the first validators. Who joined since, or goes on under
    another key, is proven by its record in the state, with the last ticket that it showed; so are
    the chains that were registered later.
    """
    members, length = audit.genesis.members, audit.genesis.params.ticket_heights
    founders = [member for member in members if member.role == "validator"]
    names = {member.key: member.name for member in founders}
    chains = {member.key: {0: Reveal(member.ticket_tip, 0)} for member in founders}
    keys, newcomers = find_newcomers(audit.genesis, audit.segments), audit.receipt.newcomers
    require(
        len(newcomers) >= len(keys),
        f"attested by a stranger: {len(keys)} who attested are not in the genesis file, "
        f"{len(newcomers)} are proven to have joined since",
    )
    require(len(keys) == len(newcomers), "the record of a validator that attested nothing")
    for key, proven in zip(keys, newcomers, strict=True):
        try:
            require_proven(audit, VALIDATORS.key(key), proven)
        except VerificationFailed as error:
            raise VerificationFailed(
                f"attested by a stranger: {key.hex()[:16]} is not in the genesis file, and that it "
                f"joined since is not proven: {error.message}"
            ) from error
        record = codec.decode(ValidatorRecord, proven.value)
        names[key], chains[key] = record.name, {record.start: record.tickets}
    for each in audit.receipt.renewed:
        require_proven(audit, RENEWED.key(each.validator, each.generation), each.proven)
        renewed = codec.decode(Renewed, each.proven.value)
        chains.setdefault(each.validator, {}).setdefault(renewed.start, renewed.tickets)
    for key, known in chains.items():
        for start, reveal in known.items():
            is_possible = start <= reveal.height <= start + length
            name = key.hex()[:16]
            require(is_possible, f"{name} showed a ticket beyond the end of its chain")
    return names, chains


def _require_chain(key: bytes, known: Reveal, tickets: dict[int, bytes]) -> None:
    """Tickets by height and the `known` element are of one hash chain: one walk down."""
    above: tuple[int, bytes] | None = None
    for height, ticket in sorted([*tickets.items(), (known.height, known.element)], reverse=True):
        if above and hash_down(above[1], above[0] - height) != ticket:
            raise VerificationFailed(
                f"a ticket of {key.hex()[:16]} is not of the chain it registered"
            )
        above = height, ticket


def _describe_end(job: Job, last: SegmentCommit) -> str:
    if last.trap:
        return f"trapped at step {last.trap - 1} of {job.steps}"
    return f"settled, {job.steps} steps in {job.chunks} chunks, {job.segments} segments"
