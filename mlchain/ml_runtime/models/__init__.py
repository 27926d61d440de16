"""Models, one a file, named after it. Each says in `TARGETS` what it may learn: "class", "value" or
"cluster". A model is a way to write a program; nodes that only run programs need none of this.

A file whose model learns by gradient defines

    def build(n: Network, x: int, *, outputs: int, **its own options) -> register of the scores

and may name the loss it takes by default, `LOSS`, one of `losses`. The step is written from its
gradient and an optimiser.

A file whose model has a rule of its own, as counting has, defines

    def fit(n: Network, x: int, y: int, *, outputs: int, **options) -> register of the loss
    def predict(n: Network, x: int, *, outputs: int, **options) -> register of the scores

`fit` writes the whole step: it declares state with `n.parameter` or `n.tally`, and says what comes
next with `n.update` or `n.count`. Its loss is only reported. `predict` declares again, in the same
order, as many of the leading tensors of state as it reads.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

MODELS: dict[str, ModuleType] = {
    name: import_module(f"{__name__}.{name}")
    for name in sorted(info.name for info in iter_modules(__path__))
}
