"""One shard at work, wherever it is: takes encoded requests, gives encoded answers.

It knows no process and no network, so it serves in a process of its own (`shard_child`), as an
actor of Dask (`executor_dask`), or in a test.
"""

from __future__ import annotations

import traceback
from collections import OrderedDict
from functools import cache

import numpy as np

from mlchain import codec
from mlchain.errors import CodecError, ConfigError, MlchainError
from mlchain.ml_runtime import Dataset, registry_digest, self_test
from mlchain.ml_runtime.data import RowReader
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.machine import Arena
from mlchain.ml_runtime.program import Program, check
from mlchain.ml_runtime.shard import Conversation, Shard, resume
from mlchain.ml_runtime.split import split
from mlchain.ml_runtime.tensor import Array, allocate, labels
from mlchain.node.compute_wire import Failed, describe
from mlchain.node.shard_wire import (
    Begin,
    Buffer,
    Hold,
    Missing,
    Offer,
    Parts,
    Prepare,
    Ready,
    Request,
    after_rows,
    join,
    part,
    read,
    read_vector,
    view_of,
)

MAX_PREPARED = 8
MAX_PROGRAM_BYTES = 1 << 20


@cache
def own_registry() -> bytes:
    """Return the digest of this version's tables, on a machine that passed the self-test.

    It may be another machine than the node's. Both take a good part of a second.
    """
    self_test()
    return registry_digest()


class ShardServer:
    """Prepared shards, of which one is at work. Not for two threads."""

    def __init__(self) -> None:
        self._arena, self._scratch = Arena(), Scratch()
        self._shards: OrderedDict[bytes, Shard] = OrderedDict()  # the latest used stands last
        self._held: tuple[bytes, Dataset | None] = (b"", None)
        self._reader: tuple[Shard, RowReader] | None = None  # of the shard that read last
        self._run: Conversation | None = None

    def answer(self, request: bytes) -> bytes:
        """Return the answer to a request; what goes wrong is an answer, too."""
        return b"".join(self.pieces(request))

    def pieces(self, request: bytes) -> list[Buffer]:
        """Return the pieces of the answer; they hold until the next request."""
        try:
            return self._do(*part(Request, request))
        except MlchainError as error:
            return join(describe(error))
        except Exception as error:  # ours: the other side is told, and this one goes on
            traceback.print_exc()
            return join(Failed("", f"{type(error).__name__}: {error}"[:4096], "", -1))

    def _do(self, request: Request, numbers: memoryview) -> list[Buffer]:
        if isinstance(request, Hold):
            self._held = request.identity, Dataset.decode(bytes(numbers))
            return join(Ready())
        if isinstance(request, Prepare):
            self._prepare(request)
            return join(Ready())
        if isinstance(request, Begin):
            self._run = None
            missing = Missing(
                request.identity not in self._shards,
                request.dataset not in (b"", self._held[0]),
            )
            if missing.shard or missing.dataset:
                return join(missing)
            self._run = self._begin(request, numbers)
            return self._advance(None)
        return self._advance(read_vector(numbers))

    def _prepare(self, request: Prepare) -> None:
        if request.registry != own_registry():
            raise ConfigError(
                "this process has another version of mlchain than the one that splits",
                "install one version everywhere",
            )
        program = codec.decode(Program, request.program, MAX_PROGRAM_BYTES)
        plan = split(check(program), request.shards)
        if request.index >= plan.shards:
            raise CodecError(f"shard {request.index} of {plan.shards}")
        arrays = {r: allocate(plan.type(r, request.index)) for r in plan.inputs}
        while len(self._shards) >= MAX_PREPARED:
            self._shards.popitem(last=False)
        self._shards[request.identity] = Shard(
            plan, request.index, arrays, self._arena, self._scratch
        )

    def _begin(self, request: Begin, numbers: memoryview) -> Conversation:
        shard = self._shards[request.identity]
        self._shards.move_to_end(request.identity)
        plan = shard.plan
        start, stop = plan.bounds(shard.index)
        registers = after_rows(plan) if request.dataset else plan.inputs
        kinds = [plan.type(r, shard.index) for r in registers]
        if request.dataset:
            kinds.insert(0, labels(1, stop - start))  # int64, as row numbers are
        arrays = read(kinds, numbers)
        if request.dataset:
            self._load(arrays.pop(0), shard)
        for r, array in zip(registers, arrays, strict=True):
            np.copyto(shard.arrays[r], array)
        return shard.run()

    def _load(self, rows: Array, shard: Shard) -> None:
        dataset = self._held[1]
        assert dataset is not None, "it is not missing"
        if rows.min() < 0 or rows.max() >= dataset.rows:
            raise CodecError(f"rows: a number is outside 0 to {dataset.rows - 1}")
        self._find_reader(shard, dataset)(rows)

    def _find_reader(self, shard: Shard, dataset: Dataset) -> RowReader:
        if self._reader is not None:
            of, reader = self._reader
            if of is shard and reader.dataset is dataset:
                return reader
        kinds = (shard.plan.type(r, shard.index) for r in (0, 1))
        x, y = (shard.arrays.get(r, allocate(kind)) for r, kind in enumerate(kinds))
        if x.shape[1:] != dataset.x.shape[1:] or y.shape[1:] != dataset.y.shape[1:]:
            raise CodecError("rows: the program reads others than the dataset has")
        self._reader = shard, RowReader(dataset, x, y)
        return self._reader[1]

    def _advance(self, reply: Array | None) -> list[Buffer]:
        if self._run is None:
            raise CodecError("no shard is at work")
        found = resume(self._run, reply)
        if isinstance(found, list):
            self._run = None
            return join(Parts(), *map(view_of, found))
        return join(Offer(), view_of(found))
