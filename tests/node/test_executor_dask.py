"""Shards on a Dask cluster: the bits of the unsplit step, also when a worker of it is killed."""

from __future__ import annotations

import os
import signal
import socket
from urllib.parse import urlsplit

import pytest
from ml_models import data_for, task_for
from test_executor import CASES, chain_of, make_data, make_task

from mlchain.ml_runtime import Oracle
from mlchain.node.executor import ExecutorFailed, open_executor

distributed = pytest.importorskip("distributed", reason="the extra mlchain[dask]")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own


def start_cluster(**options):
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", **options
    )


def address_of(cluster, query: str = "") -> str:
    return f"dask://{urlsplit(cluster.scheduler_address).netloc}{query}"


@pytest.fixture(scope="module")
def backend():
    """Two workers in threads of this process: quick to start, and all of Dask is in between."""
    with (
        start_cluster(processes=False, protocol="tcp") as cluster,
        open_executor(address_of(cluster)) as backend,
    ):
        yield backend


@pytest.mark.parametrize(("model", "target"), CASES)
def test_every_model_over_dask_trains_to_the_bits_of_the_unsplit_step(model, target, backend):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=1, chunk=1)
    assert chain_of(task, data, backend) == chain_of(task, data)
    assert len({link.name for link in backend.members(8)}) == 2


def test_over_dask_it_trains_to_the_oracle_s_bits(backend):
    data = make_data()
    task = make_task(data, hidden=(5,), steps=2)
    assert chain_of(task, data, backend) == chain_of(task, data, Oracle())


def test_a_scheduler_that_is_not_there_is_an_error_and_no_hanging(monkeypatch):
    monkeypatch.setattr("mlchain.node.executor_dask.CONNECT_S", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens on it
        with pytest.raises(ExecutorFailed, match="no Dask scheduler answers"):
            open_executor(f"dask://127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.slow
def test_a_dask_worker_killed_in_the_middle_of_a_step_changes_nothing():
    data = make_data()
    task = make_task(data, steps=10)
    lines: list[str] = []
    with (
        start_cluster(processes=True) as cluster,
        open_executor(address_of(cluster, "?shards=3"), lines.append) as backend,
    ):
        link = backend.members(8)[0]
        victim = next(w for w in cluster.workers.values() if w.worker_address in link.name)
        send, calls = link.send, []

        def kill_first(request):
            calls.append(request)
            if len(calls) == 12:
                os.kill(victim.pid, signal.SIGKILL)
            send(request)

        link.send = kill_first
        assert chain_of(task, data, backend) == chain_of(task, data)
        assert len(calls) == 12
        assert lines
        assert len(backend.members(8)) == 3
