"""Hypothesis strategies and facts for records, read from their annotations."""

from __future__ import annotations

import importlib
import pkgutil
import string
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
from msgspec import inspect

import mlchain.ledger
from mlchain.codec import Record


def ledger_records() -> list[type[Record]]:
    """Return every record type defined in the ledger, by name."""
    for module in pkgutil.iter_modules(mlchain.ledger.__path__, "mlchain.ledger."):
        importlib.import_module(module.name)
    found, todo = {}, [Record]
    while todo:
        for kind in todo.pop().__subclasses__():
            todo.append(kind)
            if kind.__module__.startswith("mlchain.ledger."):
                found[kind.__qualname__] = kind
    return [found[name] for name in sorted(found)]


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values of a record type or annotated type."""
    return _values(inspect.type_info(kind))


def _values(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType():
            return st.builds(info.cls, *(_values(field.type) for field in info.fields))
        case inspect.IntType():
            return st.integers(info.ge, info.le)
        case inspect.BoolType():
            return st.booleans()
        case inspect.BytesType():
            low, high = info.min_length or 0, info.max_length
            return st.binary(min_size=low, max_size=min(high, max(low, 40)))
        case inspect.StrType(pattern=pattern) if pattern:
            return st.from_regex(pattern, fullmatch=True)
        case inspect.StrType():
            low, high = info.min_length or 0, info.max_length
            return st.text(string.printable + "äß€🜁", min_size=low, max_size=min(high, low + 12))
        case inspect.VarTupleType():
            low, high = info.min_length or 0, info.max_length
            items = _values(info.item_type)
            return st.lists(items, min_size=low, max_size=min(high, low + 3)).map(tuple)
        case inspect.UnionType():
            return st.one_of(*(_values(each) for each in info.types))
        case inspect.NoneType():
            return st.none()
    raise TypeError(f"no record may hold {info}")


def unbounded(kind: type[Record]) -> Iterator[str]:
    """Yield the fields that are not as records must be: bounded, without default, no floats."""
    for field in msgspec.structs.fields(kind):
        if not field.required:
            yield f"{kind.__name__}.{field.name}: has a default"
    for field in inspect.type_info(kind).fields:
        for problem in _problems(field.type):
            yield f"{kind.__name__}.{field.name}: {problem}"


def _problems(info: inspect.Type) -> Iterator[str]:
    match info:
        case inspect.IntType():
            if info.ge is None or info.le is None:
                yield "an integer without bounds"
        case inspect.BytesType() | inspect.StrType():
            fixed = isinstance(info, inspect.StrType) and info.pattern
            if info.max_length is None and not fixed:
                yield "a length without bound"
        case inspect.VarTupleType():
            if info.max_length is None:
                yield "a tuple without bound"
            yield from _problems(info.item_type)
        case inspect.UnionType():
            for each in info.types:
                yield from _problems(each)
        case inspect.StructType() | inspect.BoolType() | inspect.NoneType():
            pass
        case _:
            yield f"{type(info).__name__} has no place in a record"
