"""Talking to nodes, sending jobs, checking receipts: all that needs no node of one's own.

`Client` waits, `AsyncClient` is awaited. They are imported when they are first named, for commands
that need neither start quicker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlchain.client.asynchronous import AsyncClient
    from mlchain.client.client import Client
    from mlchain.client.events import Event

__all__ = ["AsyncClient", "Client", "Event"]

_HOMES = {"AsyncClient": "asynchronous", "Client": "client", "Event": "events"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
