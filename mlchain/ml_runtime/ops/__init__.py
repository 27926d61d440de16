"""All ops, one block each; importing this package fills the table `op.OPS`.

Adding an op is adding a block here and its slow twin in `oracle`; checking, gas, machine,
gradients and the conformance suite follow.
"""

from mlchain.ml_runtime.ops import elementwise, exact, losses, updates

__all__ = ["elementwise", "exact", "losses", "updates"]
