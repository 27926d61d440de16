"""Records as JSON for people: bytes in hex, fields by name; the codec judges what is read.

Genesis files and those of the ceremony that makes them are written so. What counts is the record,
so spacing and the order of keys do not matter.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from mlchain import codec
from mlchain.codec import Record
from mlchain.errors import GenesisError

R = TypeVar("R", bound=Record)


def dump_record(record: Record) -> str:
    """Return the JSON text of a record."""
    return json.dumps(_to_json(record), indent=2) + "\n"


def parse_record(kind: type[R], data: bytes, where: str) -> R:
    """Return the record that JSON text describes; the caller has bounded its size.

    Raises:
        GenesisError: malformed; says where, from `where` on.
    """
    try:
        document = json.loads(data, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise GenesisError(f"not JSON: {error}") from error
    return codec.decode(kind, codec.encode(_from_json(kind, document, where)))


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        return {name: _to_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def _from_json(kind: type[Record], document: Any, where: str) -> list[Any]:
    """Return `document` as the array the codec expects: one decoder checks every genesis."""
    if not isinstance(document, dict):
        raise GenesisError(f"{where}: expected an object")
    types = get_type_hints(kind, include_extras=True)
    names = kind.__struct_fields__
    for name in document:
        if name not in names:
            raise GenesisError(f"{where}.{name}: no such field", "fields: " + ", ".join(names))
    row = []
    for name in names:
        if name not in document:
            raise GenesisError(f"{where}.{name}: missing")
        row.append(_convert(types[name], document[name], f"{where}.{name}"))
    return row


def _convert(kind: Any, value: Any, where: str) -> Any:
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(base, type) and issubclass(base, Record):
        return _from_json(base, value, where)
    if get_origin(base) is tuple:
        if not isinstance(value, list):
            raise GenesisError(f"{where}: expected a list")
        item = get_args(base)[0]
        value = [_convert(item, each, f"{where}[{i}]") for i, each in enumerate(value)]
    if base is bytes:
        try:
            value = bytes.fromhex(value)
        except (TypeError, ValueError) as error:
            raise GenesisError(f"{where}: expected hex digits") from error
    try:  # here and not only at the end, to say which of a hundred members it is
        msgspec.convert(value, kind, builtin_types=(bytes,))
        codec.encode(value)
    except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
        raise GenesisError(f"{where}: {error}") from error
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON object that names a field twice: people would read one, we the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise GenesisError(f"{twin}: given twice in one object")
    return found
