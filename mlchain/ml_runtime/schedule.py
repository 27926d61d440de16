"""Schedules of the learning rate: what it is multiplied by in a step, written as ops of the clock.

With s the number of the step from 1 on, warmup w and decay_steps d:

    constant    1
    linear      (d - s) / (d - w) from step w on, 0 after step d
    root        sqrt(w / s) from step w on
    step        decay_factor to the power (s - 1) div d

and s / w before step w if there is a warmup. A constant rate without warmup writes nothing.
"""

from __future__ import annotations

from mlchain.errors import ConfigError
from mlchain.ml_runtime.network import Network

SCHEDULES = ("constant", "linear", "root", "step")


def rate_factor(
    n: Network,
    *,
    schedule: str = "constant",
    warmup: int = 0,
    decay_steps: int = 0,
    decay_factor: float = 0.1,
) -> int | None:
    """Return the register of the factor of this step, or None where it is always 1.

    Raises:
        ConfigError: no such schedule, or one that lacks what it needs.
    """
    warmup, decay_steps, decay_factor = int(warmup), int(decay_steps), float(decay_factor)
    if schedule not in SCHEDULES:
        raise ConfigError(f"schedule: no {schedule!r}", "one of " + ", ".join(SCHEDULES))
    needs = {"root": warmup, "linear": decay_steps, "step": decay_steps}.get(schedule, 1)
    if needs < 1 or warmup < 0 or (schedule == "linear" and decay_steps <= warmup):
        raise ConfigError(
            f"schedule {schedule}: warmup {warmup}, decay_steps {decay_steps}",
            "root needs a warmup, linear and step need decay_steps, linear more than the warmup",
        )
    if not 0 < decay_factor <= 1:
        raise ConfigError(f"decay_factor: {decay_factor}", "a number above 0, at most 1")
    if schedule == "constant" and not warmup:
        return None
    b = n.builder
    before = b.emit("widen", n.clock())
    one = b.emit("constant", value=1.0)
    step = b.emit("add", before, one)
    if schedule == "linear":
        left = b.emit("subtract", b.emit("constant", value=float(decay_steps)), step)
        share = b.emit("scale", left, factor=1 / (decay_steps - warmup))
        factor = b.emit("maximum", share, b.emit("constant", value=0.0))
    elif schedule == "root":
        start = b.emit("constant", value=float(warmup))
        factor = b.emit("square_root", b.emit("divide", start, step))
    elif schedule == "step":
        every = b.emit("constant", value=float(decay_steps))
        times = b.emit("floor", b.emit("divide", before, every))
        base = b.emit("log", b.emit("constant", value=decay_factor))
        factor = b.emit("exp", b.emit("multiply", times, base))
    else:
        factor = one
    if not warmup:
        return b.emit("minimum", factor, one)
    return b.emit("minimum", factor, b.emit("scale", step, factor=1 / warmup))
