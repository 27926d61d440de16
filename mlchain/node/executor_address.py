"""What `--executor` may say: where the shards of a worker's steps run.

processes:4                       four processes of this machine
dask://127.0.0.1:8786             workers of a Dask scheduler on this machine, one shard each
dask+tls://cluster:8786?shards=8  over TLS, with the certificates of Dask's own configuration
dask+insecure://cluster:8786      another machine, unencrypted and unauthenticated: say so
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mlchain.errors import ConfigError

MAX_SHARDS = 256
FORMS = "processes:N, dask://HOST:PORT, dask+tls://HOST:PORT or dask+insecure://HOST:PORT"

_PROCESSES = re.compile(r"processes:([0-9]{1,4})")
_DASK = re.compile(
    r"(dask|dask\+tls|dask\+insecure)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})"
    r"(?:\?shards=([0-9]{1,4}))?"
)


@dataclass(frozen=True, slots=True)
class ExecutorAddress:
    """Processes of this machine if `host` is empty, else a Dask scheduler.

    `shards` is 0 where the cluster's number of workers decides.
    """

    shards: int
    host: str = ""
    port: int = 0
    is_tls: bool = False


def parse_executor(text: str) -> ExecutorAddress:
    """Return what an address means.

    Raises:
        ConfigError: it is none, or would send data to another machine in the clear unasked.
    """
    if match := _PROCESSES.fullmatch(text):
        return ExecutorAddress(_shards(match[1], text))
    match = _DASK.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 65_536:
        raise ConfigError(f"executor: {text!r} is no place to compute", FORMS)
    scheme, host = match[1], match[2].strip("[]")
    if scheme == "dask" and not _is_loopback(host):
        raise ConfigError(
            f"executor: {host} is another machine, and {scheme}:// neither encrypts nor asks who"
            " is there; whoever reaches a Dask scheduler can run code on it",
            "dask+tls:// with certificates, or dask+insecure:// on a network of your own",
        )
    shards = _shards(match[4], text) if match[4] else 0
    return ExecutorAddress(shards, host, int(match[3]), scheme == "dask+tls")


def _shards(text: str, address: str) -> int:
    if not 1 <= int(text) <= MAX_SHARDS:
        raise ConfigError(f"executor: {address!r}: {text} shards, not 1 to {MAX_SHARDS}")
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
