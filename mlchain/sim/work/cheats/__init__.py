"""The adversaries of whole nodes, by name: every class of this folder that has a `row`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from mlchain.sim.work.cheat import Cheat


def _collect() -> dict[str, type[Cheat]]:
    found = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = import_module(f"{__name__}.{info.name}")
        for kind in vars(module).values():
            is_own = isinstance(kind, type) and kind.__module__ == module.__name__
            if is_own and issubclass(kind, Cheat) and kind.row:
                found[kind.name()] = kind
    return found


CHEATS = _collect()
"""A name is the class's, in lower case with hyphens."""
