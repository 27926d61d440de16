"""Models, one a file: each file that defines `build` is a model named after the file.

    def build(n: Network, x: int, *, outputs: int, **its own options) -> register of the scores

`TARGETS` of the file says what it may learn: "class", "value" or both. A model is a way to write
a program; nodes that only run programs need none of this.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

MODELS: dict[str, ModuleType] = {
    name: import_module(f"{__name__}.{name}")
    for name in sorted(info.name for info in iter_modules(__path__))
}
