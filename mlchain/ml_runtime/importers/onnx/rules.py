"""The table of operators: how each is written as a program where an input depends on the row."""

from __future__ import annotations

from collections.abc import Callable

from mlchain.ml_runtime.importers.onnx.trace import Trace
from mlchain.ml_runtime.importers.onnx.values import Call, Value

Result = Value | tuple[Value, ...]
Rule = Callable[[Trace, Call], Result]
RULES: dict[str, Rule] = {}


def rule(*keys: str) -> Callable[[Rule], Rule]:
    """Decorator: enter a rule into the table under the names of its operators (`Node.key`)."""

    def enter(function: Rule) -> Rule:
        for key in keys:
            assert key not in RULES, f"two rules for {key}"
            RULES[key] = function
        return function

    return enter
