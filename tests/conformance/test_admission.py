"""A backend is admitted by its results alone: the registry hands out none that failed."""

from __future__ import annotations

import pytest
from ml_factory import backend_or_skip, make_program, observe
from wrong_backends import WRONG, Spoilt, one_ulp, other_zeros

from mlchain.errors import ConfigError
from mlchain.ml_runtime import NumpyBackend, backends, get_backend, self_test
from mlchain.ml_runtime.backends import Kind


@pytest.fixture
def register(monkeypatch):
    monkeypatch.setattr(backends, "_admitted", set())
    made = []

    def add(make) -> str:
        def counted():
            made.append(1)
            return make()

        monkeypatch.setitem(backends.BACKENDS, "new", Kind(counted, "new", "on trial"))
        return "new"

    add.made = made
    return add


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_every_backend_that_is_installed_here_is_admitted(name):
    backend_or_skip(name)
    assert get_backend(name).name == name


def test_a_backend_that_computes_the_same_is_admitted(register):
    assert isinstance(get_backend(register(NumpyBackend)), NumpyBackend)


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_a_backend_that_is_wrong_by_a_bit_is_refused_by_the_self_test_alone(register, spoil):
    with pytest.raises(ConfigError, match=r"backend new: self test: .* differs") as caught:
        get_backend(register(lambda: Spoilt(spoil)))
    assert "numpy" in caught.value.hint


def test_the_way_of_spoiling_is_no_reason_to_be_refused():
    """Control: the same class that spoils nothing passes."""
    self_test(Spoilt(lambda op, call: None))


def test_a_backend_may_choose_the_sign_of_every_zero():
    self_test(Spoilt(other_zeros))
    for seed in range(120):
        program, inputs = make_program(seed)
        assert observe(program, inputs, Spoilt(other_zeros)) == observe(
            program, inputs, NumpyBackend()
        ), f"seed {seed}"


def test_it_is_tested_once_in_a_process_and_made_anew_for_everybody(register, monkeypatch):
    tested = []
    monkeypatch.setattr(backends, "self_test", tested.append)
    name = register(NumpyBackend)
    assert get_backend(name) is not get_backend(name)
    assert len(tested) == 1


def test_a_backend_that_failed_is_refused_again(register):
    name = register(lambda: Spoilt(one_ulp))
    for _ in range(2):
        with pytest.raises(ConfigError, match="differs"):
            get_backend(name)


def test_a_library_that_crashes_is_one_clear_error(register):
    def crash(op, call):
        raise RuntimeError("device-side assert\nat a thousand places")

    with pytest.raises(ConfigError, match=r"backend new: device-side assert$"):
        get_backend(register(lambda: Spoilt(crash)))


def test_a_missing_library_names_the_extra(register):
    def missing():
        raise ModuleNotFoundError("No module named 'jax'", name="jax")

    with pytest.raises(ConfigError, match="backend new: jax is not installed") as caught:
        get_backend(register(missing))
    assert caught.value.hint == "pip install 'mlchain[new]'"


def test_a_library_that_does_not_load_is_one_clear_error(register):
    def broken():
        raise ImportError("Numba needs NumPy 2.5 or less. Got NumPy 3.0.")

    with pytest.raises(ConfigError, match="backend new: Numba needs NumPy"):
        get_backend(register(broken))


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match="no 'jax'") as caught:
        get_backend("jax")
    assert "numpy" in caught.value.hint
