"""Shards on the workers of a Dask cluster that is already there; see `executor`.

Each shard is an actor: an object on one of the workers. Dask carries one request and one answer
at a time, both bytes in our own encoding, and reports when a worker is gone. It finds the class
of the actor by name, so the same version of mlchain has to be installed on every worker. Dask
itself pickles what it sends between client, scheduler and workers: whoever can reach a scheduler
can run code on the cluster and on its clients. Connect to a cluster of your own only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from mlchain.errors import ConfigError
from mlchain.node.executor import ExecutorFailed, Link, Lost, Message
from mlchain.node.executor_address import ExecutorAddress
from mlchain.node.shard_server import ShardServer

try:
    from distributed import Client, Security
except ImportError as error:
    raise ConfigError("executor: Dask is not installed", "pip install 'mlchain[dask]'") from error

CONNECT_S = 15
START_S = 60


class DaskEngine:
    """A connection to a scheduler. Without a wish, one shard for each worker there is now.

    Raises:
        ExecutorFailed: no scheduler answers, or it has no workers.
    """

    def __init__(self, where: ExecutorAddress) -> None:
        host = f"[{where.host}]" if ":" in where.host else where.host
        address = f"{'tls' if where.is_tls else 'tcp'}://{host}:{where.port}"
        security = Security(require_encryption=True) if where.is_tls else None
        try:
            self._client = Client(
                address, security=security, timeout=CONNECT_S, set_as_default=False, name="mlchain"
            )
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise ExecutorFailed(
                f"no Dask scheduler answers at {address}: {error}",
                "start one with `dask scheduler`, and workers with `dask worker`",
            ) from error
        self.name = f"dask at {address}"
        self.shards = where.shards or len(self._client.ncores())
        self._at: Counter[str] = Counter()  # shards started on each worker
        if not self.shards:
            self.close()
            raise ExecutorFailed(f"{self.name} has no workers", f"dask worker {address}")

    def start(self) -> Link:
        """Make an actor on a worker, one with the fewest of ours."""
        try:
            workers = self._client.ncores()
            if not workers:
                raise Lost(f"{self.name} has no workers")
            worker = min(sorted(workers), key=lambda address: self._at[address])
            made = self._client.submit(ShardServer, actor=True, pure=False, workers=[worker])
            with self._client.as_current():
                actor = made.result(timeout=START_S)
            link = DaskLink(self._client, made, actor, f"dask worker {worker}")
        except Lost:
            raise
        except Exception as error:  # a worker that died, or that lacks mlchain
            raise Lost(f"{self.name} starts no shard: {type(error).__name__}: {error}") from error
        self._at[worker] += 1
        return link

    def close(self) -> None:
        """Disconnect; the actors go with the client."""
        self._client.close()


class DaskLink:
    """An actor. `answer` of `ShardServer` raises nothing, so whatever is raised is a loss."""

    def __init__(self, client: Client, made: Any, actor: Any, name: str) -> None:
        self._client, self.name = client, name
        self._made: Any = made  # the cluster forgets an actor that no future names
        self._actor: Any = actor
        self._future: Any = None

    def send(self, request: Message) -> None:
        """Send the pieces of a request."""
        try:
            with self._client.as_current():
                self._future = self._actor.answer(b"".join(request))
        except Exception as error:
            raise Lost(f"{self.name}: {error}") from error

    def receive(self, seconds: float) -> bytes:
        """Return the answer."""
        try:
            answer = self._future.result(timeout=seconds)
        except Exception as error:
            raise Lost(f"{self.name}: {str(error) or type(error).__name__}") from error
        if not isinstance(answer, bytes):
            raise ExecutorFailed(f"{self.name}: the answer is no message")
        return answer

    def close(self) -> None:
        """Let the actor go."""
        self._made = self._actor = self._future = None
