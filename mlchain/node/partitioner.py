"""The partitioner: a validator makes what is said of partitions itself, and confirms what is so.

It holds the datasets that wait to be drawn from, makes the parts of a draw from its own copy, and
merges the models of the parts. What it made is stored, so nobody has to upload it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from mlchain import codec
from mlchain.errors import (
    CodecError,
    NotFound,
    RejectedProgram,
    Trap,
    VerificationFailed,
)
from mlchain.ledger.content import cid_of, cid_text
from mlchain.ledger.state import State
from mlchain.ml_runtime import Dataset, Task
from mlchain.node.artifacts import MAX_STATE_RESPONSE, Artifacts, get_plan
from mlchain.node.chain import Chain
from mlchain.node.compute import Compute
from mlchain.node.duties import Duties
from mlchain.node.examiner import RETRY_S
from mlchain.node.rota import Act, Rota, fetching
from mlchain.vm.families.data import DATASETS
from mlchain.vm.families.jobs import JOBS
from mlchain.vm.families.merges import MERGES, OPEN_MERGES, Merge, get_parties
from mlchain.vm.families.models import MODELS
from mlchain.vm.families.partitions import (
    DRAWS,
    NAMINGS,
    OPEN_NAMINGS,
    WAITING_DRAWS,
    naming_id,
)

log = structlog.get_logger("partitioner")


PLACES = 4
"""Draws, datasets and merges that are worked on at a time."""
LONGEST_REST_S = 300.0
MAX_MADE = 256


@dataclass
class Partitioner:
    """One validator's part in draws and merges."""

    key: bytes
    chain: Chain
    artifacts: Artifacts
    compute: Compute
    duties: Duties
    poke: Callable[[], None]
    """Called when something waits for a precommit."""
    rota: Rota = field(default_factory=lambda: Rota(PLACES, RETRY_S, LONGEST_REST_S))
    _made: dict[bytes, bytes] = field(default_factory=dict)
    """What we found the parts of the latest draws to be, as the id of saying so."""
    _judged: dict[bytes, None] = field(default_factory=dict)
    """What was said and we made ourselves; it was so, or it was not."""

    async def run(self) -> None:
        """Hold what is to be drawn from, and confirm whatever is said and is so; for ever."""
        await self.rota.run(self._find)

    async def _find(self) -> Mapping[bytes, Act]:
        if self.key not in self.chain.validators:  # nothing we say counts
            return {}
        state, due = self.chain.state(), dict[bytes, Act]()
        for (_, identity), _ in WAITING_DRAWS.items(state):
            draw = DRAWS.get(state, identity)
            assert draw is not None, "draws stay"
            if self._lacks(state, draw.content):
                due[draw.content] = partial(self._hold, state, draw.content)
        for (draw_id, said), _ in OPEN_NAMINGS.items(state):
            naming = NAMINGS.get(state, said)
            if naming is not None and self._is_asked(said, naming.holders):
                due[draw_id] = partial(self._judge_parts, state, draw_id)
        for (said,), _ in OPEN_MERGES.items(state):
            merge = MERGES.get(state, said)
            if merge is not None and self._is_asked(said, merge.holders):
                due[said] = partial(self._judge_merge, state, merge, said)
        return due

    def _lacks(self, state: State, content: bytes) -> bool:
        record = DATASETS.get(state, content)
        if record is None or self.key in record.holders:
            return False
        return not self.duties.is_announced(content, record.facts)

    def _is_asked(self, said: bytes, holders: tuple[bytes, ...]) -> bool:
        return self.key not in holders and said not in self._judged

    async def _hold(self, state: State, content: bytes) -> None:
        await hold_dataset(self.key, self.artifacts, self.duties, state, content)
        self.poke()

    async def _judge_parts(self, state: State, draw_id: bytes) -> None:
        """Make the parts of a draw, once, and confirm who says what they are."""
        found = self._made.get(draw_id)
        if found is None:
            try:
                found = naming_id(draw_id, await self.artifacts.make_parts(state, draw_id))
            except VerificationFailed as error:
                log.warning("no-parts", draw=draw_id.hex()[:8], reason=error.message)
                found = b""
            self._made[draw_id] = found
            if len(self._made) > MAX_MADE:
                del self._made[next(iter(self._made))]
        for (_, said), _ in OPEN_NAMINGS.items(state, draw_id):
            self._judge(said, said == found)

    async def _judge_merge(self, state: State, merge: Merge, said: bytes) -> None:
        try:
            await self._check_merge(state, merge)
        except VerificationFailed as error:
            log.warning("no-merge", said=said.hex()[-16:], reason=error.message)
            self._judge(said, False)
        else:
            self._judge(said, True)

    def _judge(self, said: bytes, is_so: bool) -> None:
        self._judged[said] = None
        log.info("judged", said=said.hex()[-16:], confirmed=is_so)
        if is_so:
            self.duties.add_available(said)
            self.poke()

    async def _check_merge(self, state: State, merge: Merge) -> None:
        """Merge the models ourselves, compare and keep the file.

        Raises:
            VerificationFailed: they make another file.
        """
        draw = DRAWS.get(state, merge.draw)
        job = JOBS.get(state, merge.jobs[0])
        assert draw is not None and job is not None, "merges are of jobs on a draw"
        states = []
        for identity in merge.jobs:
            model = MODELS.get(state, identity)
            if model is None or model.revoked_height:
                raise NotFound("a model of the merge was revoked")
            states.append(await self.artifacts.fetch_content(model.content, MAX_STATE_RESPONSE))
        dataset = await self.artifacts.fetch_dataset(state, draw.content)
        rows = get_parties(draw)
        task = Task(get_plan(state, job).encode(), 1, 1, sum(rows), draw.test_rows)
        handle = await self.compute.load(codec.encode(task), dataset, draw.seed)
        try:
            made = await self.compute.merge(handle, tuple(states), tuple(rows))
        except (CodecError, RejectedProgram, Trap) as error:
            raise VerificationFailed(f"they make none: {error.message}") from error
        if (cid_of(made), len(made)) != (merge.content, merge.size):
            raise VerificationFailed("the jobs make another model")
        await trio.to_thread.run_sync(self.artifacts.content.put, made)


async def hold_dataset(
    key: bytes, artifacts: Artifacts, duties: Duties, state: State, content: bytes
) -> None:
    """Fetch or make a dataset somebody wants to use; announce it once it is whole and readable.

    One try is short, however large it is: what came is kept, and whoever serves slowly must not
    keep us from the data of others.

    Raises: as `Artifacts.fetch_dataset`; Timeout: try again; VerificationFailed: it is none, or
    another than was said.
    """
    record = DATASETS.get(state, content)
    if record is None or key in record.holders:
        return
    with fetching(0):
        data = await artifacts.fetch_dataset(state, content)
    try:
        dataset = await trio.to_thread.run_sync(Dataset.decode, data)
    except CodecError as error:
        log.warning("dataset-unreadable", reason=error.message)
        raise VerificationFailed(f"dataset {cid_text(content)}: {error.message}") from error
    found = (len(data), dataset.rows, dataset.features)
    said = (record.size, record.rows, record.features)
    if found != said:
        log.warning("dataset-differs", found=found)
        raise VerificationFailed(f"dataset {cid_text(content)} is {found}, not {said}")
    duties.add_available(content, record.facts)
