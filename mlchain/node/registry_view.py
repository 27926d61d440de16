"""The registry of models as JSON values: names, versions, and what is known of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mlchain.crypto import address
from mlchain.errors import CodecError, NotFound
from mlchain.ledger.state import State
from mlchain.ledger.unixfs import cid_text, parse_cid
from mlchain.ledger.validators import ValidatorSet
from mlchain.node.job_view import metrics_view
from mlchain.node.plain import Json, to_json
from mlchain.vm.families.models import (
    MODEL_FILES,
    NAMES,
    VERSIONS,
    ModelFile,
    Owned,
    is_usable,
)


class RegistryViews:
    """Reads the registry of one chain."""

    def __init__(
        self,
        state: Callable[[], State],
        validators: Callable[[], ValidatorSet],
        names: Mapping[bytes, str],
    ) -> None:
        self._state, self._validators, self._names = state, validators, names

    def list(self, limit: int) -> list[Json]:
        """Return the last version of up to `limit` names, in the order of the names."""
        rows = []
        for (name,), owned in NAMES.items(self._state()):
            if len(rows) == limit:
                break
            rows.append(self._version(name, owned, owned.versions))
        return rows

    def find(self, text: str) -> Json:
        """Return a model by NAME, NAME@VERSION or content id.

        Raises:
            NotFound: not registered.
        """
        name, _, number = text.partition("@")
        owned = NAMES.get(self._state(), name.encode()[:64])
        if owned is not None:
            wanted = int(number) if number.isdecimal() and len(number) < 9 else 0
            if number and not 1 <= wanted <= owned.versions:
                raise NotFound(f"{name} has versions 1 to {owned.versions}")
            return self._version(name.encode(), owned, wanted or owned.versions)
        try:
            content = parse_cid(text)
        except CodecError:
            content = b""
        file = MODEL_FILES.get(self._state(), content) if content else None
        if file is None:
            raise NotFound(f"no model {text[:80]!r}", "mlchain model list")
        row = {"name": None, "version": None, "versions": 0, "owner": None, "owner_key": None}
        row |= {"parent": None, "data": None, "licence": None, "height": None}
        return to_json({**row, **self._file(content, file)})

    def _version(self, name: bytes, owned: Owned, number: int) -> Json:
        version = VERSIONS.get(self._state(), number, name)
        assert version is not None, "versions are counted"
        file = MODEL_FILES.get(self._state(), version.content)
        assert file is not None, "the file is registered with the version"
        return to_json(
            {
                "name": name.decode(),
                "version": number,
                "versions": owned.versions,
                "owner": self._names.get(owned.owner) or address(owned.owner),
                "owner_key": owned.owner,
                "parent": cid_text(version.parent) if version.parent else None,
                "data": cid_text(version.data) if version.data else None,
                "licence": version.licence,
                "height": version.height,
                **self._file(version.content, file),
            }
        )

    def _file(self, content: bytes, file: ModelFile) -> Json:
        validators = self._validators()
        return {
            "content": cid_text(content),
            "size": file.size,
            "features": file.features,
            "outputs": file.outputs,
            "answer": file.answer,
            "gas": file.gas,
            "job": file.job or None,
            "held_by": [self._names.get(key) or address(key) for key in file.holders],
            "usable": is_usable(file, validators),
            "evaluations": list(self._evaluations(file)),
        }

    def _evaluations(self, file: ModelFile) -> Iterator[Json]:
        for found in file.evaluations:
            yield {
                "dataset": cid_text(found.dataset),
                "height": found.height,
                **metrics_view(found.metrics),
            }
