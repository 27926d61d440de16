"""The ML process: computes what the runtime computes, and dies without harm to the node."""

from __future__ import annotations

import functools
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing

from mlchain import codec
from mlchain.errors import CodecError, ConfigError, RejectedProgram, Trap
from mlchain.ml_runtime import Dataset, Model, State, Task, Trainer, make_plan
from mlchain.node import compute_child
from mlchain.node.compute import Chunk, Compute, ComputeFailed, Trapped
from mlchain.node.compute_wire import (
    HEADER,
    MAX_FRAME_BYTES,
    Digest,
    Failed,
    InitialState,
    Load,
    Loaded,
    Request,
    RunChunks,
    StateIs,
    Unknown,
    describe,
    pack,
    revive,
    unpack,
)
from mlchain.p2p.transport import PeerRefused

SEED = bytes(range(32))
ROOT = Path(__file__).parents[2]


@functools.cache
def dataset() -> bytes:
    draws = np.random.default_rng(7)
    x = draws.normal(size=(60, 4))
    return Dataset.from_arrays(x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0), classes=3).encode()


def make_task(steps=10, chunk=4, **options) -> bytes:
    plan = make_plan("softmax", features=4, classes=3, batch=8, **options)
    return codec.encode(Task(plan.encode(), steps, chunk, 48, 12))


ENDLESS = {"steps": 1 << 32, "chunk": 1 << 32}


def here(task: bytes) -> Trainer:
    """The same job in this process."""
    return Trainer(codec.decode(Task, task), Dataset.decode(dataset()), SEED)


def scenario(test):
    """Run an async test with a `Compute`, with an end."""

    def run():
        async def bounded():
            with trio.fail_after(60):
                async with Compute() as compute:
                    await test(compute)

        trio.run(bounded)

    run.__name__ = test.__name__
    return run


async def is_gone(pid: int) -> None:
    """Return when there is no such process, or it is only a corpse nobody has looked at."""
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        await trio.sleep(0.01)


@scenario
async def test_it_computes_what_the_runtime_computes_here(compute):
    task = make_task()
    trainer = here(task)
    handle = await compute.load(task, dataset(), SEED)
    assert handle.chunks == 3
    state = trainer.initial_state()
    assert await compute.initial_state(handle) == (state.encode(), state.digest())
    states = [state]
    for index in range(3):
        states.append(trainer.run_chunk(index, states[-1]))
    async with compute.run_chunks(handle, 0, 3, state.encode()) as chunks:
        got = [chunk async for chunk in chunks]
    assert [(c.index, c.state, c.digest) for c in got] == [
        (i, s.encode(), s.digest()) for i, s in enumerate(states[1:])
    ]
    assert got[-1].loss_micros == round(trainer.loss * 1e6) > 0
    for index in range(3):
        replayed = await compute.replay(handle, index, states[index].encode())
        assert replayed == Digest(got[index].digest, b"")
    assert await compute.evaluate(handle, got[-1].state) == trainer.evaluate(states[-1])
    model = await compute.model(handle, got[-1].state)
    assert Model.decode(model) == trainer.model(states[-1])
    async with compute.run_chunks(handle, 3, 0, got[-1].state) as chunks:
        assert [chunk async for chunk in chunks] == []


def test_another_backend_gives_the_same_digest_and_one_that_fails_is_refused():
    pytest.importorskip("numba")
    task = make_task()

    async def digest(backend: str) -> Digest | Trapped:
        with trio.fail_after(120):
            async with Compute(backend=backend) as compute:
                handle = await compute.load(task, dataset(), SEED)
                state, _ = await compute.initial_state(handle)
                return await compute.replay(handle, 0, state, SEED)

    found = trio.run(digest, "numpy")
    assert trio.run(digest, "numba") == found and len(found.custody) == 32
    with pytest.raises(ConfigError, match="no 'jax'"):
        trio.run(digest, "jax")


@scenario
async def test_it_gives_way_to_the_node_and_uses_one_thread(compute):
    await compute.load(make_task(), dataset(), SEED)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, compute.pid) == own + compute_child.NICENESS
    score = Path(f"/proc/{compute.pid}/oom_score_adj").read_text()
    assert int(score) == compute_child.OUT_OF_MEMORY_SCORE
    environ = Path(f"/proc/{compute.pid}/environ").read_bytes().split(b"\0")
    assert {b"OMP_NUM_THREADS=1", b"OPENBLAS_NUM_THREADS=1", b"MKL_NUM_THREADS=1"} <= set(environ)


@scenario
async def test_errors_of_the_runtime_travel_as_themselves_and_the_process_lives_on(compute):
    task = make_task()
    handle = await compute.load(task, dataset(), SEED)
    state, _ = await compute.initial_state(handle)
    pid = compute.pid
    bad_plan = codec.encode(Task(b"\xc1", 10, 4, 48, 12))
    too_many_rows = codec.encode(Task(codec.decode(Task, task).plan, 10, 4, 60, 12))
    for wrong, error in (
        ((bad_plan, dataset()), RejectedProgram),
        ((too_many_rows, dataset()), RejectedProgram),
        ((b"\xc1", dataset()), CodecError),
        ((task, dataset()[:-1]), CodecError),
        ((task, b""), CodecError),
    ):
        with pytest.raises(error):
            await compute.load(*wrong, SEED)
    with pytest.raises(CodecError):
        await compute.load(task, dataset(), b"short")
    for call in (
        lambda: compute.replay(handle, 3, state),
        lambda: compute.replay(handle, 0, state[:-1]),
        lambda: compute.evaluate(handle, b""),
    ):
        with pytest.raises(CodecError):
            await call()
    with pytest.raises(CodecError, match="chunks 2 to 3 of 3"):
        async with compute.run_chunks(handle, 2, 2, state) as chunks:
            [chunk async for chunk in chunks]
    assert isinstance(await compute.replay(handle, 0, state), Digest)
    assert compute.pid == pid


@scenario
async def test_a_trap_is_a_result_of_training_with_its_step(compute):
    task = make_task(rate="1e300", optimiser="sgd")
    trainer = here(task)
    state = trainer.initial_state()
    with pytest.raises(Trap) as expected:
        trainer.run_chunk(0, state)
    handle = await compute.load(task, dataset(), SEED)
    trapped = Trapped(expected.value.step)
    assert await compute.replay(handle, 0, state.encode()) == trapped
    async with compute.run_chunks(handle, 0, 3, state.encode()) as chunks:
        assert [chunk async for chunk in chunks] == [trapped]
    assert await compute.initial_state(handle) == (state.encode(), state.digest())


@scenario
async def test_a_killed_process_fails_the_pending_call_once(compute):
    handle = await compute.load(make_task(**ENDLESS), dataset(), SEED)
    state, digest = await compute.initial_state(handle)
    pid = compute.pid
    failures = []

    async def replay():
        try:
            await compute.replay(handle, 0, state)
        except ComputeFailed as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(replay)
        await trio.testing.wait_all_tasks_blocked(0.05)
        os.kill(pid, signal.SIGKILL)
    assert [error.message for error in failures] == [
        "the ML process ended before it answered (killed by SIGKILL)"
    ]
    assert await compute.initial_state(handle) == (state, digest)
    assert compute.pid != pid


@scenario
async def test_shutting_down_fails_the_pending_call_and_starts_nothing_again(compute):
    handle = await compute.load(make_task(**ENDLESS), dataset(), SEED)
    state, _ = await compute.initial_state(handle)
    pid = compute.pid

    async def replay():
        with pytest.raises(ComputeFailed):
            await compute.replay(handle, 0, state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(replay)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await compute.__aexit__(None, None, None)
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ComputeFailed, match="shut down"):
        await compute.initial_state(handle)
    assert compute.pid is None


@scenario
async def test_a_process_killed_while_idle_is_replaced_without_a_word(compute):
    handle = await compute.load(make_task(), dataset(), SEED)
    before = await compute.initial_state(handle)
    pid = compute.pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # all its threads are gone
    assert await compute.initial_state(handle) == before
    assert compute.pid != pid


@scenario
async def test_a_cancelled_call_stops_the_training(compute):
    handle = await compute.load(make_task(**ENDLESS), dataset(), SEED)
    state, _ = await compute.initial_state(handle)
    pid = compute.pid
    with trio.move_on_after(0.05) as scope:
        await compute.replay(handle, 0, state)
    assert scope.cancelled_caught
    assert not Path(f"/proc/{pid}").exists()
    assert (await compute.initial_state(handle))[0] == state


@scenario
async def test_leaving_a_stream_early_stops_the_training_but_reading_it_whole_does_not(compute):
    handle = await compute.load(make_task(steps=1 << 20, chunk=2), dataset(), SEED)
    state, _ = await compute.initial_state(handle)
    pid = compute.pid
    async with compute.run_chunks(handle, 0, 3, state) as chunks:
        assert [chunk.index async for chunk in chunks] == [0, 1, 2]
    assert compute.pid == pid
    async with compute.run_chunks(handle, 0, 1 << 19, state) as chunks:
        async for chunk in chunks:
            assert isinstance(chunk, Chunk)
            break
    assert compute.pid is None and not Path(f"/proc/{pid}").exists()
    assert (await compute.initial_state(handle))[0] == state


@scenario
async def test_more_jobs_than_it_keeps_are_loaded_again_when_needed(compute):
    handles = [
        await compute.load(make_task(), dataset(), bytes([n]) * 32)
        for n in range(compute_child.MAX_JOBS + 1)
    ]
    pid = compute.pid
    digests = [(await compute.initial_state(handle))[1] for handle in handles]
    assert len(set(digests)) == len(handles)
    assert [(await compute.initial_state(h))[1] for h in reversed(handles)] == digests[::-1]
    assert compute.pid == pid


def test_the_process_ends_with_its_parent_even_in_the_middle_of_a_chunk(tmp_path):
    (tmp_path / "inputs").write_bytes(codec.encode((make_task(**ENDLESS), dataset())))
    script = f"""
import trio
from mlchain import codec
from mlchain.node.compute import Compute

async def main():
    async with Compute() as compute:
        task, data = codec.decode(tuple[bytes, bytes], open("inputs", "rb").read())
        handle = await compute.load(task, data, {SEED!r})
        state, _ = await compute.initial_state(handle)
        print(compute.pid, flush=True)
        await compute.replay(handle, 0, state)

trio.run(main)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()

    async def wait():
        with trio.fail_after(20):
            await is_gone(child)

    trio.run(wait)


def test_what_is_printed_by_accident_does_not_get_between_the_frames():
    script = (
        "from mlchain.node import compute_child as child\n"
        "requests, replies = child.take_pipes()\n"
        "print('noise', flush=True)\n"
        "replies.write(requests.read()); replies.flush()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"frame",
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout, done.stderr) == (b"frame", b"noise\n")


IDENTITY = b"i" * 32


def serve(*requests: Request | bytes) -> list:
    replies: list = []
    frames = [r if isinstance(r, bytes) else codec.encode(r) for r in requests]
    compute_child.serve(iter(frames), replies.append)
    return replies


def test_a_chunk_is_not_computed_before_the_one_before_it_was_taken(monkeypatch):
    task = make_task(steps=100, chunk=1)
    state = here(task).initial_state().encode()
    computed = []
    real = Trainer.run_chunk

    def run_chunk(self, index, state):
        computed.append(index)
        return real(self, index, state)

    def send(reply):
        assert len(computed) <= len(taken)
        taken.append(reply)
        if len(taken) == 4:
            raise BrokenPipeError

    taken: list = []
    monkeypatch.setattr(Trainer, "run_chunk", run_chunk)
    requests = [Load(IDENTITY, task, dataset(), SEED), RunChunks(IDENTITY, 0, 100, state)]
    with pytest.raises(BrokenPipeError):
        compute_child.serve(map(codec.encode, requests), send)
    assert computed == [0, 1, 2]


def test_a_question_about_a_job_that_is_not_loaded_is_answered_so():
    assert serve(InitialState(IDENTITY)) == [Unknown()]


def test_a_malformed_request_is_answered_and_so_is_the_next():
    for wrong in (b"", b"\xc1", codec.encode(InitialState(b"short")), codec.encode(Unknown())):
        failed, unknown = serve(wrong, InitialState(IDENTITY))
        assert failed.code == "CodecError" and unknown == Unknown()


def test_a_bug_in_the_process_is_told_and_the_next_request_answered(monkeypatch, capsys):
    requests = [Load(IDENTITY, make_task(), dataset(), SEED), InitialState(IDENTITY)]
    real, calls = Trainer.initial_state, []

    def fail_once(self) -> State:
        calls.append(self)
        if len(calls) == 1:
            raise ZeroDivisionError("oh")
        return real(self)

    monkeypatch.setattr(Trainer, "initial_state", fail_once)
    loaded, failed, state = serve(*requests, requests[1])
    assert isinstance(loaded, Loaded) and isinstance(state, StateIs)
    assert failed == Failed("", "ZeroDivisionError: oh", "", -1)
    assert revive(failed) is None
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [RejectedProgram("no", "hint"), CodecError("x" * 5000), Trap("out", "", 7)]
)
def test_an_error_survives_the_journey(error):
    back = revive(unpack(Failed, pack(describe(error))[1]))
    assert type(back) is type(error)
    assert (back.message, back.hint) == (error.message[:4096], error.hint)
    assert getattr(back, "step", None) == getattr(error, "step", None)


def test_an_error_of_another_package_arrives_as_the_nearest_one_all_know():
    assert describe(PeerRefused("no", "code")).code == "Unreachable"
    for name in ("annotations", "Exception", "no such", ""):
        assert revive(Failed(name, "m", "h", -1)) is None


def test_a_stream_that_is_cut_off_ends_and_a_frame_too_large_is_refused():
    header, body = pack(InitialState(IDENTITY))
    whole = header + body
    read = compute_child.read_requests
    assert list(read(io.BytesIO(whole * 2))) == [body] * 2
    for cut in range(len(whole)):
        assert list(read(io.BytesIO(whole[:cut]))) == []
    with pytest.raises(CodecError, match="at most"):
        list(read(io.BytesIO(HEADER.pack(MAX_FRAME_BYTES + 1))))
