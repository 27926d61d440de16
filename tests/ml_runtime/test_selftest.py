"""The start-up self test and the registry."""

from __future__ import annotations

import numpy as np
import pytest

from mlchain.errors import ConfigError
from mlchain.ml_runtime import NumpyBackend, Oracle, registry_digest, self_test
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.ops.elementwise import Relu
from mlchain.ml_runtime.ops.exact import Matmul


def test_this_machine_passes():
    self_test()


def test_the_oracle_passes_so_the_pinned_digests_are_its():
    self_test(Oracle())


class LastBit(NumpyBackend):
    """A backend whose products are one unit in the last place too large."""

    def bind(self, program, inputs, outputs, trace=None):
        run = super().bind(program, inputs, outputs, trace)

        def almost() -> None:
            run()
            for array in outputs:
                array[...] = np.nextafter(array, np.inf, dtype=array.dtype)

        return almost


def test_one_bit_is_enough_to_be_refused():
    with pytest.raises(ConfigError, match="self test: product differs"):
        self_test(LastBit())


def test_tables_that_differ_are_refused(monkeypatch):
    monkeypatch.setattr("mlchain.ml_runtime.functions.TABLE_DIGEST", "00")
    with pytest.raises(ConfigError, match="tables"):
        self_test()


def test_the_registry_lists_every_op_and_every_model(monkeypatch):
    before = registry_digest()
    assert before == registry_digest()

    class Renamed(Relu):
        name = "relu6"

    monkeypatch.setitem(OPS, "relu6", Renamed())
    with_op = registry_digest()
    monkeypatch.delitem(OPS, "relu6")
    monkeypatch.setitem(MODELS, "another", MODELS["softmax"])
    with_model = registry_digest()
    monkeypatch.delitem(MODELS, "another")
    monkeypatch.setattr(Matmul, "gas", lambda self, ins, outs: 1)
    cheaper = registry_digest()
    assert len({before, with_op, with_model, cheaper}) == 4


def test_models_are_found_in_the_order_of_their_names():
    assert list(MODELS) == sorted(MODELS)
    assert {"linear", "mlp", "softmax"} <= MODELS.keys()
