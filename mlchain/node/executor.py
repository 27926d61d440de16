"""A backend whose shards run elsewhere: in processes, on a cluster; it survives their loss.

    with open_executor("processes:4") as backend:
        state = run(task, dataset, seed, backend=backend)

Those who run shards keep the dataset and the program; at each step they are sent the numbers of
their rows and the parameters, and then answer exchange after exchange (`ml_runtime.split`). The
update of the state runs here. So nothing but this process knows anything worth keeping: when one
of them is lost, the step begins again with another in its place, or with fewer, and the bits are
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import TracebackType
from typing import Any, Protocol

from mlchain import codec
from mlchain.crypto import digest, digest_bulk
from mlchain.errors import CodecError, MlchainError, RejectedProgram, Trap
from mlchain.ml_runtime import Dataset, NumpyBackend, ShardedBackend, registry_digest
from mlchain.ml_runtime.data import RowReader
from mlchain.ml_runtime.machine import Run, Trace
from mlchain.ml_runtime.program import Checked, Program, check
from mlchain.ml_runtime.shard import Meeting
from mlchain.ml_runtime.sharded import rows_of
from mlchain.ml_runtime.split import Split, split
from mlchain.ml_runtime.tensor import Array, allocate
from mlchain.node.compute_wire import Failed, revive
from mlchain.node.executor_address import parse_executor
from mlchain.node.shard_wire import (
    Answer,
    Begin,
    Buffer,
    Hold,
    Missing,
    Offer,
    Parts,
    Prepare,
    Ready,
    Resume,
    after_rows,
    join,
    part,
    read,
    read_vector,
    view_of,
)

ATTEMPTS = 5
"""How often a step is begun before the loss of those who run its shards is taken for final."""
ANSWER_S = 300.0
"""How long one answer may take before the one who owes it counts as lost."""


class ExecutorFailed(MlchainError):
    """Nobody runs the shards, or somebody answered nonsense. Asking again may help."""


class Lost(Exception):
    """One who ran a shard is gone, or silent for too long; says who and how."""


Message = Sequence[Buffer]


class Link(Protocol):
    """The way to one who runs shards, one request and answer at a time."""

    name: str

    def send(self, request: Message) -> None:
        """Send the pieces of a request. Raises Lost."""

    def receive(self, seconds: float) -> Buffer:
        """Return the answer. Raises Lost if there is none in that time."""

    def close(self) -> None:
        """Let go; ends a process that is ours."""


class Engine(Protocol):
    """Starts those who run shards."""

    name: str
    shards: int
    """How many are wanted."""

    def start(self) -> Link:
        """Start one. Raises Lost, or ExecutorFailed if there is no hope."""

    def close(self) -> None:
        """Let go of what the engine itself holds."""


class Executor:
    """A backend over the links of an engine. Close it in the end. Not for two threads.

    `log` hears of every loss. With `or_whole` a program that cannot be split runs here instead.
    """

    def __init__(
        self,
        engine: Engine,
        log: Callable[[str], None] = lambda line: None,
        or_whole: bool = False,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.name = engine.name
        self._engine, self._log, self._or_whole, self._answer_s = engine, log, or_whole, answer_s
        self._links: list[Link] = []
        self._wanted = engine.shards
        self._numpy = NumpyBackend()

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End whatever was started."""
        for link in list(self._links):
            self._drop(link)
        self._engine.close()

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program; see `machine.Backend`. What is traced runs here.

        Raises:
            RejectedProgram: the program mixes rows.
        """
        shards = min(self._engine.shards, len(inputs[0]) if inputs and inputs[0].ndim else 1)
        if trace is not None:
            return ShardedBackend(shards).bind(program, inputs, outputs, trace)
        checked = check(program)
        if not self._is_split(checked, shards):
            return self._numpy.bind(program, inputs, outputs)
        return _Step(self, checked, inputs, outputs, None).run

    def bind_rows(
        self,
        program: Program,
        dataset: Dataset,
        rows: Array,
        state: Sequence[Array],
        outputs: Sequence[Array],
    ) -> Run:
        """Bind a step program to rows of a dataset; see `train.HoldsData`."""
        checked = check(program)
        if not self._is_split(checked, min(self._engine.shards, len(rows))):
            x, y = (allocate(kind) for kind in program.inputs[:2])
            step, read = (
                self._numpy.bind(program, [x, y, *state], outputs),
                RowReader(dataset, x, y),
            )

            def run() -> None:
                read(rows)
                step()

            return run
        return _Step(self, checked, [rows, rows, *state], outputs, _Held(dataset)).run

    def _is_split(self, checked: Checked, shards: int) -> bool:
        try:
            split(checked, shards)
        except RejectedProgram as error:
            if not self._or_whole:
                raise
            self._log(f"runs in one piece: {error.message}")
            return False
        return True

    def members(self, rows: int) -> list[Link]:
        """Return the links of a step of so many rows, as many as wanted or as can be had.

        Raises:
            ExecutorFailed: there is none.
        """
        wanted = min(self._wanted, rows)
        while len(self._links) < wanted:
            try:
                link = self._engine.start()
            except Lost as error:
                if not self._links:
                    raise ExecutorFailed(f"{self.name}: {error}") from error
                self._log(f"{error}; going on with {len(self._links)}")
                wanted = self._wanted = len(self._links)
                break
            self._links.append(link)
        return self._links[:wanted]

    def ask(
        self, links: Sequence[Link], requests: Sequence[Message], kind: Any
    ) -> list[tuple[Any, memoryview]]:
        """Return the answers to one request each, all of them `kind`, and the numbers of each.

        Raises:
            Lost: one did not answer; it is no member any more.
            Trap: a shard trapped.
            ExecutorFailed: a shard failed otherwise, or answered nonsense.
        """
        errors: list[Exception] = []
        answers: list[tuple[Any, memoryview]] = []
        try:
            for link, request in zip(links, requests, strict=True):
                self._attempt(link, errors, partial(link.send, request))
            for link in links:  # all of them, so that none answers late
                if link in self._links:
                    self._attempt(link, errors, partial(self._receive, link, kind, answers))
        except BaseException:  # interrupted: what is still under way would be taken for answers
            for link in links:
                self._drop(link)
            raise
        for severity in (Trap, Lost, Exception):
            for error in errors:
                if isinstance(error, severity):
                    raise error
        return answers

    def _attempt(self, link: Link, errors: list[Exception], act: Callable[[], None]) -> None:
        try:
            act()
        except Lost as error:
            self._log(str(error))
            self._drop(link)
            errors.append(error)
        except MlchainError as error:
            errors.append(error)

    def _receive(self, link: Link, kind: Any, answers: list[tuple[Any, memoryview]]) -> None:
        body = link.receive(self._answer_s)
        try:
            answer, numbers = part(Answer, body)
        except CodecError as error:
            self._drop(link)
            raise ExecutorFailed(f"{link.name}: the answer is no message") from error
        if isinstance(answer, Failed):
            cause = revive(answer)
            if isinstance(cause, Trap):
                raise cause
            raise ExecutorFailed(f"{link.name}: {answer.message}", answer.hint)
        if not isinstance(answer, kind):
            self._drop(link)
            raise ExecutorFailed(f"{link.name}: answered {type(answer).__name__}")
        answers.append((answer, numbers))

    def _drop(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
            link.close()


@cache
def _own_registry() -> bytes:
    return registry_digest()  # takes a good part of a second


class _Held:
    """A dataset that those who run shards keep."""

    def __init__(self, dataset: Dataset) -> None:
        self.encoded = dataset.encode()
        self.identity = digest_bulk("mlchain/shard-dataset", self.encoded)


class _Step:
    """A program bound to arrays here, and run elsewhere."""

    def __init__(
        self,
        executor: Executor,
        checked: Checked,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        held: _Held | None,
    ) -> None:
        self._executor, self._checked, self._held = executor, checked, held
        self._inputs, self._outputs = inputs, outputs
        self._program = codec.encode(checked.program)
        self._meetings: dict[int, Meeting] = {}

    def run(self) -> None:
        """Run the program once, and again from its inputs if somebody was lost meanwhile."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._run(self._executor.members(len(self._inputs[0])))
                return
            except Lost as error:
                if attempt == ATTEMPTS:
                    raise ExecutorFailed(
                        f"{self._executor.name}: lost {ATTEMPTS} times in one step, last: {error}",
                        "look for lack of memory, and whether mlchain runs there",
                    ) from error

    def _run(self, links: list[Link]) -> None:
        meeting = self._meet(len(links))
        plan, ask = meeting.plan, self._executor.ask
        answers = self._begin(plan, links)
        for i in range(len(plan.exchanges)):
            with _nonsense(self._executor.name):
                reply = meeting.reduce(i, [read_vector(numbers) for _, numbers in answers])
            is_last = i == len(plan.exchanges) - 1
            if is_last and not plan.answers:
                answers = []
                break
            resume = join(Resume(), view_of(reply))
            answers = ask(links, [resume] * len(links), Parts if is_last else Offer)
        with _nonsense(self._executor.name):
            parts = [
                read([plan.type(r, k) for r in plan.gathered], numbers)
                for k, (_, numbers) in enumerate(answers)
            ]
        meeting.finish(parts)

    def _meet(self, shards: int) -> Meeting:
        if shards not in self._meetings:
            plan = split(self._checked, shards)
            self._meetings[shards] = Meeting(plan, self._inputs, self._outputs, NumpyBackend())
        return self._meetings[shards]

    def _begin(self, plan: Split, links: list[Link]) -> list[tuple[Any, memoryview]]:
        """Begin all shards, telling those who lack it what they need; return the first answers."""
        ask, shards = self._executor.ask, range(plan.shards)
        begins = [self._make_begin(plan, k) for k in shards]
        kind: Any = Offer if plan.exchanges else Parts
        answers = ask(links, begins, kind | Missing)
        lacking = [(k, a) for k, (a, _) in enumerate(answers) if isinstance(a, Missing)]
        if not lacking:
            return answers
        of_shard = [k for k, answer in lacking if answer.shard]
        prepares = [join(self._make_prepare(plan, k)) for k in of_shard]
        ask([links[k] for k in of_shard], prepares, Ready)
        if self._held is not None:
            hold = join(Hold(self._held.identity), self._held.encoded)
            of_data = [links[k] for k, answer in lacking if answer.dataset]
            ask(of_data, [hold] * len(of_data), Ready)
        return ask(links, begins, kind)

    def _identity(self, plan: Split, index: int) -> bytes:
        return digest("mlchain/shard", self._program, codec.encode((plan.shards, index)))

    def _make_prepare(self, plan: Split, index: int) -> Prepare:
        identity = self._identity(plan, index)
        return Prepare(identity, _own_registry(), self._program, plan.shards, index)

    def _make_begin(self, plan: Split, index: int) -> Message:
        identity = self._identity(plan, index)
        if self._held is None:
            inputs = rows_of(plan, index, self._inputs)
            return join(Begin(identity, b""), *map(view_of, inputs.values()))
        rows = self._inputs[0][slice(*plan.bounds(index))]
        state = [self._inputs[r] for r in after_rows(plan)]
        return join(Begin(identity, self._held.identity), *map(view_of, [rows, *state]))


@contextmanager
def _nonsense(name: str) -> Iterator[None]:
    """Whoever answers other numbers than asked for has a bug or is no shard of ours."""
    try:
        yield
    except CodecError as error:
        raise ExecutorFailed(f"{name}: {error.message}") from error


def open_executor(
    address: str, log: Callable[[str], None] = lambda line: None, or_whole: bool = False
) -> Executor:
    """Return the backend that an address names (`executor_address`); close it in the end.

    Raises:
        ConfigError: no such address, or what it takes is not installed.
        ExecutorFailed: no such cluster answers.
    """
    where = parse_executor(address)
    engine: Engine
    if where.host:
        from mlchain.node.executor_dask import DaskEngine

        engine = DaskEngine(where)
    else:
        from mlchain.node.executor_processes import ProcessEngine

        engine = ProcessEngine(where.shards)
    return Executor(engine, log, or_whole)
