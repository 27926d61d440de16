"""What verification costs beside the training it verifies: worker, one validator, all of them.

    PYTHONPATH=. python benchmarks/verification.py

For the job of examples/digits.toml and a larger net. A worker pays for exactness (against the same
step in plain numpy float64) and for committing to every chunk. A validator fetches the states
before the chunks of its slice, replays them and compares digests; all n together should cost the
part n * s / T' of the training, s of the T' chunks being one slice. Times are CPU times of this
process, and the chunks of the slice take turns with the worker's, so a busy machine slows both
alike.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the processes of a node

import numpy as np
from training import (
    CLASSES,
    RATE,
    ROWS,
    PlainNumpy,
    exact_stepper,
    machine,
    plain_stepper,
)

from mlchain.client.jobfile import load_job_file
from mlchain.client.training import prepare
from mlchain.consensus.work.assurance import Tier, slice_size
from mlchain.ml_runtime import Dataset, State, Task, Trainer, make_plan

VALIDATORS = (4, 7, 10)
SEED = b"\x07" * 32
WIDE = (784, 256, 128, CLASSES)
WIDE_BATCH, WIDE_ROWS, WIDE_CHUNKS, WIDE_TESTS = 128, 4000, 1000, 1000
CHUNK = 4
SAMPLE = 40
"""Chunks that are measured; the cost of a chunk does not depend on its place."""
REPEATS = 60


class Meter:
    """CPU milliseconds by name, each time something was done: others on the machine cost little."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.times.setdefault(name, []).append((time.process_time() - start) * 1e3)

    def ms(self, *names: str) -> float:
        """Return the sum of the medians."""
        return sum(statistics.median(self.times[name]) for name in names)


class Loopback:
    """A worker that serves bytes over TCP on this machine: what a fetch costs both at least."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._client = socket.create_connection(listener.getsockname())
        self._server, _ = listener.accept()
        listener.close()

    def fetch(self, data: bytes) -> bytes:
        """Return `data` after it went through the socket."""
        sender = threading.Thread(target=self._server.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            got += self._client.recv(1 << 20)
        sender.join()
        return bytes(got)

    def close(self) -> None:
        self._client.close()
        self._server.close()


def digits() -> tuple[Task, Dataset, tuple[int, ...]]:
    """Return the job of the example, and the widths of its net."""
    job = load_job_file(Path(__file__).parents[1] / "examples" / "digits.toml")
    prepared = prepare(job)
    widths = (prepared.features, *job.hidden, len(prepared.classes))
    return prepared.task, Dataset.decode(prepared.dataset), widths


def images() -> tuple[Task, Dataset, tuple[int, ...]]:
    """Return a job of the size of MNIST's usual first net; its data are noise."""
    random = np.random.default_rng(0)
    x = random.random((WIDE_ROWS + WIDE_TESTS, WIDE[0]))
    y = random.integers(0, CLASSES, len(x))
    plan = make_plan(
        "mlp", features=WIDE[0], classes=CLASSES, optimiser="adam", hidden=WIDE[1:-1],
        batch=WIDE_BATCH, rate=RATE,
    )  # fmt: skip
    task = Task(plan.encode(), WIDE_CHUNKS * CHUNK, CHUNK, WIDE_ROWS, WIDE_TESTS)
    return task, Dataset.from_arrays(x, y, classes=CLASSES), WIDE


def measure_steps(task: Task, dataset: Dataset, widths: tuple[int, ...]) -> tuple[float, float]:
    """Return CPU milliseconds of a step: exact, and in plain numpy float64."""
    trainer = Trainer(task, dataset, SEED)
    trainer._loop.load(trainer.initial_state().tensors)
    random, batch = np.random.default_rng(0), trainer.plan.batch
    x, y = random.random((ROWS, widths[0])), random.integers(0, widths[-1], ROWS)
    exact, plain = (
        exact_stepper(trainer),
        plain_stepper(PlainNumpy(widths, batch, np.float64), x, y, batch),
    )
    meter = Meter()
    for _ in range(REPEATS):
        with meter("exact"):
            exact()
        with meter("float64"):
            plain()
    return meter.ms("exact"), meter.ms("float64")


def measure_chunks(task: Task, dataset: Dataset) -> tuple[Meter, int]:
    """Train and audit some chunks in turn; return the times, and the bytes of a state."""
    worker, validator = (Trainer(task, dataset, SEED) for _ in range(2))
    loopback, meter = Loopback(), Meter()
    state = worker.initial_state()
    served = state.encode()
    for index in range(SAMPLE):
        before = state.digest()
        with meter("train"):
            state = worker.run_chunk(index, state)
        with meter("commit: encode"):
            after = state.encode()
        with meter("commit: digest"):
            leaf = state.digest()
        with meter("audit: fetch"):
            data = loopback.fetch(served)
        with meter("audit: decode, digest"):
            start = State.decode(data, validator.plan)
            assert start.digest() == before
        with meter("audit: replay"):
            end = validator.run_chunk(index, start)
        with meter("audit: digest"):
            assert end.digest() == leaf
        served = after
    with meter("audit: final score"):
        validator.evaluate(state)
    loopback.close()
    return meter, len(served)


def row(name: str, *columns: str) -> None:
    print(f"  {name:54}", *(f"{column:>12}" for column in columns), flush=True)


def report(name: str, task: Task, dataset: Dataset, widths: tuple[int, ...]) -> None:
    """Measure one job and print its table."""
    exact, plain = measure_steps(task, dataset, widths)
    meter, size = measure_chunks(task, dataset)
    print(f"\n{name}: {task.steps:,} steps, {task.chunks:,} chunks of {task.chunk}, "
          f"state {size:,} bytes")  # fmt: skip
    train = meter.ms("train")
    row(
        "a step, exact / numpy float64, CPU ms",
        f"{exact:.3f}",
        f"{plain:.3f}",
        f"{exact / plain:.2f}x",
    )
    row("a chunk, CPU ms", f"{train:.3f}")
    for part in ("commit: encode", "commit: digest"):
        row(
            f"{part}, CPU ms, share of the chunk",
            f"{meter.ms(part):.3f}",
            f"{meter.ms(part) / train:.1%}",
        )
    audit = ("audit: fetch", "audit: decode, digest", "audit: replay", "audit: digest")
    for part in audit:
        row(
            f"{part}, CPU ms, share of the chunk",
            f"{meter.ms(part):.3f}",
            f"{meter.ms(part) / train:.1%}",
        )
    score = meter.ms("audit: final score")
    whole = task.chunks * train
    row("", "measured", "n s / T'", "ratio")
    for n in VALIDATORS:
        slice_ = min(task.chunks, slice_size(Tier("audited"), task.chunks, task.chunks, n))
        one = (slice_ * meter.ms(*audit) + score) / whole
        formula = n * slice_ / task.chunks
        row(f"n = {n}: one validator, s = {slice_}", f"{one:.2%}", f"{slice_ / task.chunks:.2%}",
            f"{one * task.chunks / slice_:.2f}x")  # fmt: skip
        row(
            f"n = {n}: all validators",
            f"{n * one:.1%}",
            f"{formula:.1%}",
            f"{n * one / formula:.2f}x",
        )
        moved = slice_ * size + 32 * task.chunks + size
        row(f"n = {n}: fetched by one, MB, share of all states", f"{moved / 1e6:.1f}",
            f"{moved / (task.chunks * size):.1%}")  # fmt: skip


def main() -> None:
    """Measure both jobs."""
    print(f"{machine()}, load average {os.getloadavg()[0]:.1f}")
    report("examples/digits.toml", *digits())
    report("-".join(map(str, WIDE)) + f", batch {WIDE_BATCH}", *images())


if __name__ == "__main__":
    main()
