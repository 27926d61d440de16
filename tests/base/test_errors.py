"""The drawn tree of errors is the real one."""

from __future__ import annotations

import inspect
import re

from mlchain import errors

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
}


def test_the_picture_shows_every_error_under_its_parent():
    drawn = re.findall(r"^    ([│ ]*)[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    parents = {0: "MlchainError"}
    found = {}
    for lead, name in drawn:
        depth = len(lead) // 4
        found[name] = parents[depth]
        parents[depth + 1] = name
    real = {n: kind.__bases__[0].__name__ for n, kind in CLASSES.items() if n != "MlchainError"}
    assert found == real


def test_an_error_says_what_happened_and_may_say_what_to_do():
    error = errors.GenesisError("members: no validator", "add one")
    assert (str(error), error.message, error.hint) == (
        error.message,
        "members: no validator",
        "add one",
    )
    assert errors.CodecError("x").hint == ""


def test_every_error_is_ours_and_described():
    for kind in CLASSES.values():
        assert issubclass(kind, errors.MlchainError) and inspect.getdoc(kind)
