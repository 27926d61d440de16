"""Shards run elsewhere: the bits of the unsplit step, whoever is lost; clear errors, no hanging."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trio
from ml_models import data_for, task_for

from mlchain import codec
from mlchain.errors import ConfigError, RejectedProgram, Trap
from mlchain.ml_runtime import Dataset, NumpyBackend, Oracle, Task, Trainer, make_plan, run
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.tensor import finite, grid
from mlchain.node import executor as executor_module
from mlchain.node.compute import Compute
from mlchain.node.compute_child import serve
from mlchain.node.compute_wire import Failed, Load, Loaded, describe, pack
from mlchain.node.executor import ATTEMPTS, Executor, ExecutorFailed, Lost, open_executor
from mlchain.node.executor_address import ExecutorAddress, parse_executor
from mlchain.node.executor_processes import ProcessEngine
from mlchain.node.shard_server import ShardServer
from mlchain.node.shard_wire import Answer, Begin, Hold, Missing, Offer, Resume, join, part

SEED = bytes(range(32))
CASES = [(name, target) for name, module in MODELS.items() for target in module.TARGETS]


def make_data(target: str = "class", rows: int = 60) -> Dataset:
    r = np.random.default_rng(5)
    x = r.normal(size=(rows, 7))
    values = x @ r.normal(size=(7, 3 if target == "class" else 2))
    y = values.argmax(1) if target == "class" else values
    return Dataset.from_arrays(x, y, classes=3 if target == "class" else 0)


def make_task(data: Dataset, model: str = "mlp", batch: int = 8, steps: int = 6, **options) -> Task:
    sizes = {"classes" if data.kind == "class" else "outputs": data.outputs}
    plan = make_plan(model, features=data.features, batch=batch, **sizes, **options)
    return Task(plan.encode(), steps, 2, 45, 15)


def chain_of(task, data, backend=None, on_chunk=lambda index: None) -> list[bytes]:
    digests: list[bytes] = []

    def look(index, state):
        digests.append(state.digest())
        on_chunk(index)

    run(task, data, SEED, look, backend)
    return digests


class HereLink:
    """One who runs shards in this process; `spoil` may change or refuse its answers."""

    def __init__(self, spoil=lambda count, answer: answer) -> None:
        self.name, self._server, self._spoil, self.count = "here", ShardServer(), spoil, 0

    def send(self, request) -> None:
        self._answer = self._server.answer(b"".join(request))

    def receive(self, seconds: float) -> bytes:
        self.count += 1
        return self._spoil(self.count, self._answer)

    def close(self) -> None:
        pass


class HereEngine:
    name = "here"

    def __init__(self, shards: int, spoils=(), most: int = 1000) -> None:
        self.shards, self._spoils, self._most = shards, list(spoils), most

    def start(self):
        if not self._most:
            raise Lost("nobody is left")
        self._most -= 1
        return HereLink(*[self._spoils.pop(0)] if self._spoils else [])

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def processes():
    with open_executor("processes:3") as backend:
        yield backend


@pytest.mark.parametrize(("model", "target"), CASES)
def test_every_model_over_processes_trains_to_the_bits_of_the_unsplit_step(
    model, target, processes
):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=2, chunk=1)
    assert chain_of(task, data, processes) == chain_of(task, data)


def test_over_processes_it_trains_to_the_oracle_s_bits_and_is_worth_the_same(processes):
    data = make_data()
    task = make_task(data, hidden=(5,))
    assert chain_of(task, data, processes) == chain_of(task, data, Oracle())
    there, here = Trainer(task, data, SEED, processes), Trainer(task, data, SEED)
    state = here.initial_state()
    assert there.evaluate(state) == here.evaluate(state)
    assert there.model(state) == here.model(state)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_of_fewer_rows_than_shards_is_split_over_as_many_as_it_has(batch):
    data = make_data()
    task = make_task(data, batch=batch)
    assert chain_of(task, data, Executor(HereEngine(4))) == chain_of(task, data)


def test_a_process_killed_between_two_chunks_changes_nothing(processes):
    data = make_data()
    task = make_task(data)
    victims = [link.process for link in processes.members(8)[:2]]

    def kill(index):
        if index == 0:
            for victim in victims:
                os.kill(victim.pid, signal.SIGKILL)

    assert chain_of(task, data, processes, kill) == chain_of(task, data)
    assert len(processes.members(8)) == 3


def test_a_process_killed_in_the_middle_of_a_step_changes_nothing(processes):
    data = make_data()
    task = make_task(data)
    link = processes.members(8)[1]
    receive, calls = link.receive, []

    def kill_first(seconds):
        calls.append(seconds)
        if len(calls) == 9:  # in the second step, behind an exchange
            os.kill(link.process.pid, signal.SIGKILL)
            link.process.wait()
        return receive(seconds)

    link.receive = kill_first
    assert chain_of(task, data, processes) == chain_of(task, data)
    assert len(calls) == 9


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("most", [1000, 2])
def test_wherever_in_a_step_one_is_lost_the_bits_stay_with_another_or_with_fewer(at, most):
    data = make_data()
    task = make_task(data, steps=2)

    def die(count, answer):
        if count == at:
            raise Lost("here is lost")
        return answer

    lines: list[str] = []
    backend = Executor(HereEngine(2, [die], most), lines.append)
    assert chain_of(task, data, backend) == chain_of(task, data)
    assert lines[0] == "here is lost"
    assert (most == 1000) == (len(backend.members(8)) == 2)


def test_a_trap_is_the_same_result_at_the_same_step(processes):
    data = make_data("value")
    task = make_task(data, "linear", optimiser="sgd", rate=1e30, steps=20)
    steps = []
    for backend in (None, processes):
        with pytest.raises(Trap) as trap:
            chain_of(task, data, backend)
        steps.append((trap.value.step, trap.value.message))
    assert steps[0] == steps[1]
    assert chain_of(make_task(data), data, processes) == chain_of(make_task(data), data)


def test_processes_that_end_at_once_give_an_error_and_no_hanging():
    data = make_data()
    with (
        Executor(ProcessEngine(2, "mlchain.node.no_such_module")) as backend,
        pytest.raises(ExecutorFailed, match=r"lost 5 times in one step.*ended \(status 1\)"),
    ):
        chain_of(make_task(data), data, backend)
    assert ATTEMPTS == 5


def test_a_process_that_falls_silent_is_replaced():
    data = make_data()
    task = make_task(data)
    lines: list[str] = []
    with Executor(ProcessEngine(2), lines.append) as backend:
        link = backend.members(8)[0]
        chain_of(task, data, backend)
        receive = link.receive
        link.receive = lambda seconds: receive(0.2)
        os.kill(link.process.pid, signal.SIGSTOP)
        assert chain_of(task, data, backend) == chain_of(task, data)
    assert lines == [f"{link.name} is silent"]
    assert link.process.returncode == -signal.SIGKILL


def offer_of(change):
    """Change what an answer offers, if it offers something."""

    def spoil(count, answer):
        found, numbers = part(Answer, answer)
        if not isinstance(found, Offer):
            return answer
        return message(Offer(), change(np.frombuffer(numbers)).tobytes())

    return spoil


def message(record, numbers: bytes = b"") -> bytes:
    return b"".join(join(record, numbers))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (offer_of(lambda numbers: numbers[:-1]), r"shard 0, exchange 0: 0 numbers, not 1"),
        (offer_of(lambda numbers: np.append(numbers, 1.0)), r"2 numbers, not 1"),
        (offer_of(lambda n: np.append(n[:2], n[2:] * np.nan)), "a partial sum is not finite"),
        (lambda count, answer: b"\xff" * 9, "here: the answer is no message"),
        (lambda count, answer: b"", "here: the answer is no message"),
        (lambda count, answer: b"\1" + bytes(7) + b"\xc0" + bytes(6) + b"\1", "is no message"),
        (lambda count, answer: message(Failed("", "Oops", "", -1)), "here: Oops"),
        (
            lambda count, answer: answer if count < 3 else message(Hold(bytes(32))),
            "no message",
        ),
    ],
)
def test_nonsense_is_refused_by_the_name_of_who_answers_it(spoil, reason):
    data = make_data()
    with pytest.raises(ExecutorFailed, match=reason):
        chain_of(make_task(data), data, Executor(HereEngine(2, [spoil])))


def test_offers_of_bytes_that_are_no_numbers_are_refused():
    def spoil(count, answer):
        return message(Offer(), b"abc") if isinstance(part(Answer, answer)[0], Offer) else answer

    data = make_data()
    with pytest.raises(ExecutorFailed, match="numbers"):
        chain_of(make_task(data), data, Executor(HereEngine(2, [spoil])))


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(executor_module, "_own_registry", lambda: bytes(32))
    data = make_data()
    with pytest.raises(ExecutorFailed, match="another version of mlchain"):
        chain_of(make_task(data), data, Executor(HereEngine(2)))


def test_a_machine_that_computes_other_bits_serves_nobody(monkeypatch):
    def differ():
        raise ConfigError("this machine cannot take part")

    monkeypatch.setattr("mlchain.node.shard_server.own_registry", differ)
    data = make_data()
    with pytest.raises(ExecutorFailed, match="here: this machine cannot take part"):
        chain_of(make_task(data), data, Executor(HereEngine(2)))


def mixing_program():
    b = Builder()
    x = b.input(grid(16, 4, 4))
    return b.program([b.mean(b.matmul(x, x))])


def test_a_program_that_mixes_rows_is_refused_by_name_or_runs_here_if_wanted():
    x = np.eye(4)
    with pytest.raises(RejectedProgram, match=r"op 0 \(matmul\): .*cannot be split"):
        execute(mixing_program(), [x], Executor(HereEngine(2)))
    lines: list[str] = []
    (mean,) = execute(mixing_program(), [x], Executor(HereEngine(2), lines.append, or_whole=True))
    assert mean == 0.25
    assert "runs in one piece" in lines[0]


def test_what_is_split_by_rows_is_put_together_again():
    b = Builder()
    x = b.input(finite(5, 2))
    program = b.program([b.emit("scale", x, factor=2.0), x, b.mean(x)])
    values = np.arange(10.0).reshape(5, 2)
    doubled, same, mean = execute(program, [values], Executor(HereEngine(3)))
    assert np.array_equal(doubled, 2 * values)
    assert np.array_equal(same, values)
    assert mean == 4.5


def ask(server: ShardServer, request, numbers: bytes = b""):
    return part(Answer, server.answer(message(request, numbers)))[0]


def test_bad_requests_are_answered_with_what_is_wrong():
    seen: list[bytes] = []

    class Listening(HereLink):
        def send(self, request):
            seen.append(b"".join(request))
            super().send(request)

    engine = HereEngine(1)
    engine.start = Listening
    data = make_data()
    chain_of(make_task(data, steps=1), data, Executor(engine))
    server = ShardServer()
    begin, prepare, hold = seen[:3]
    start, numbers = part(Begin, begin)
    rows, rest = bytes(numbers[:64]), bytes(numbers[64:])
    assert ask(server, Resume()).message == "no shard is at work"
    assert ask(server, start, rows + rest) == Missing(True, True)
    server.answer(prepare)
    assert ask(server, start, rows + rest) == Missing(False, True)
    server.answer(hold)
    assert ask(server, start, rows + rest) == Offer()
    assert "the reply has not 1 numbers" in ask(server, Resume(), bytes(16)).message
    assert "no numbers" in ask(server, Resume(), bytes(3)).message
    for wrong in (rest, rows[8:] + rest, rows + rest + b"\0", b""):
        assert re.match("[0-9]+ bytes, not [0-9]+", ask(server, start, wrong).message)
    for row in (60, -1, 2**62):
        beyond = np.full(8, row).tobytes()
        assert "outside 0 to 59" in ask(server, start, beyond + rest).message
    for noise in (b"", b"\x00", begin[:20], begin[:-1], b"\xff" * 50, b"\0" + begin):
        assert isinstance(part(Answer, server.answer(noise))[0], Failed)
    assert ask(server, start, rows + rest) == Offer()


def test_the_ml_process_of_a_worker_trains_over_processes():
    data = make_data()
    task = make_task(data)

    async def train() -> list[bytes]:
        with trio.fail_after(60):
            async with Compute("processes:2") as compute:
                handle = await compute.load(codec.encode(task), data.encode(), SEED)
                state, _ = await compute.initial_state(handle)
                async with compute.run_chunks(handle, 0, handle.chunks, state) as chunks:
                    pids = children_of(compute.pid)
                    found = [chunk.digest async for chunk in chunks]
                    assert len(children_of(compute.pid)) == 2, pids
                    return found

    assert trio.run(train) == chain_of(task, data)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_an_ml_process_whose_cluster_is_gone_says_so_and_the_next_one_tries_again(monkeypatch):
    data = make_data()

    class Gone:
        def __getattr__(self, name):
            raise ExecutorFailed("nobody is there")

    backends = [Gone(), NumpyBackend()]
    load = Load(bytes(32), codec.encode(make_task(data)), data.encode(), SEED)
    replies: list = []
    for _ in range(2):
        serve(iter([pack(load)[1]] * 2), replies.append, lambda: backends[0])
        backends.pop(0)
    assert replies == [describe(ExecutorFailed("nobody is there")), Loaded(3), Loaded(3)]


def test_closing_ends_every_process():
    backend = open_executor("processes:2")
    found = [link.process for link in backend.members(8)]
    backend.close()
    assert [process.poll() for process in found] == [-signal.SIGKILL] * 2


def test_processes_end_with_the_one_that_started_them():
    code = (
        "from mlchain.node.executor import open_executor\n"
        "import os, time\n"
        "links = open_executor('processes:2').members(8)\n"
        "print(*(link.process.pid for link in links), flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, "a process outlived its parent"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_addresses_say_what_they_mean():
    assert parse_executor("processes:4") == ExecutorAddress(4)
    assert parse_executor("dask://127.0.0.1:8786") == ExecutorAddress(0, "127.0.0.1", 8786)
    assert parse_executor("dask://[::1]:8786?shards=8") == ExecutorAddress(8, "::1", 8786)
    assert parse_executor("dask+tls://gpu.lan:1") == ExecutorAddress(0, "gpu.lan", 1, True)
    assert parse_executor("dask+insecure://10.0.0.1:1") == ExecutorAddress(0, "10.0.0.1", 1)


@pytest.mark.parametrize("text", ["dask://10.0.0.1:8786", "dask://example.org:8786"])
def test_data_goes_to_another_machine_in_the_clear_only_if_told_so(text):
    with pytest.raises(ConfigError, match="another machine"):
        parse_executor(text)


@pytest.mark.parametrize(
    "text",
    ["", "processes", "processes:", "processes:0", "processes:999", "threads:2", "dask://host",
     "dask://127.0.0.1:0", "dask://127.0.0.1:99999", "dask://127.0.0.1:1?shards=0", "processes:-1",
     "processes:٣", "dask://127.0.0.1:8786/x", "tcp://127.0.0.1:8786"],
)  # fmt: skip
def test_other_addresses_are_refused(text):
    with pytest.raises(ConfigError, match="executor: "):
        parse_executor(text)
