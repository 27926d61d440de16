"""All ops, one block each; importing this package fills the table `op.OPS`.

Adding an op is adding a block here and its slow twin in `oracle`; checking, gas, machine,
gradients and the conformance suite follow.
"""

from importlib import import_module
from pkgutil import iter_modules

for _info in sorted(iter_modules(__path__), key=lambda info: info.name):
    import_module(f"{__name__}.{_info.name}")
