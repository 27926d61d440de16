"""mlchain doctor: finds a machine that must not vote."""

import json

import pytest

from mlchain.cli import doctor, doctor_runtime
from mlchain.cli.doctor import Finding
from mlchain.errors import ConfigError
from mlchain.ml_runtime import NumpyBackend, backends, examination, selftest


def test_a_machine_that_computes_something_else_is_found(monkeypatch):
    monkeypatch.setitem(selftest.PINNED, "product", "00" * 32)
    finding = doctor.check_runtime()
    assert (finding.verdict, "product differs" in finding.text) == ("bad", True)


def test_a_machine_that_computes_the_same_passes(monkeypatch):
    monkeypatch.setattr(selftest, "self_test", lambda: None)
    assert doctor.check_runtime().verdict == "good"


def test_a_missing_library_is_found(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plyvel", None)
    assert (doctor.check_libraries().verdict, doctor.check_libraries().hint) == (
        "bad",
        "scripts/setup",
    )


def test_a_folder_that_cannot_be_written_is_found(home):
    assert doctor.check_disk(home / "not" / "there" / "yet").verdict in ("good", "notice")
    if __import__("os").geteuid() != 0:
        (home / "closed").mkdir(mode=0o500)
        assert doctor.check_disk(home / "closed").verdict == "bad"


def test_few_files_are_a_notice(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 256))
    assert doctor.check_files().verdict == "notice"
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert doctor.check_files().verdict == "good"


def test_an_absurd_clock_is_found(monkeypatch):
    monkeypatch.setattr("time.gmtime", lambda: __import__("time").struct_time((1970,) + (1,) * 8))
    assert doctor.check_clock().verdict == "bad"


@pytest.fixture
def findings(monkeypatch):
    found = [Finding("disk", "good", "9 GB free"), Finding("files", "notice", "few", "more")]
    monkeypatch.setattr(doctor, "examine", lambda home: iter(found))
    return found


def test_each_finding_is_a_line_with_its_hint(run, findings):
    result = run("doctor")
    assert result.exit_code == 0
    assert result.stdout == "✓ disk       9 GB free\n! files      few\n             try  more\n"
    data = json.loads(run("doctor", "--json").stdout)["data"]
    assert [row["verdict"] for row in data["checks"]] == ["good", "notice"]


def test_a_failed_check_exits_with_7(run, run_json, findings):
    findings.append(Finding("runtime", "bad", "other bits"))
    result = run("doctor")
    assert result.exit_code == 7
    assert "✗ runtime    other bits" in result.stdout
    assert "should not run here: runtime" in result.stderr
    assert run_json("doctor")[0] == 7


@pytest.fixture
def one_backend(monkeypatch):
    """Leave a single backend to examine, made by what is put into the list returned."""
    makers = [NumpyBackend]
    kind = backends.Kind(lambda: makers[-1](), "", "on trial")
    monkeypatch.setattr(backends, "BACKENDS", {"numpy": kind})
    return makers


def test_every_vector_is_computed_by_every_backend(run, findings, one_backend):
    result = run("doctor", "--runtime", "--json")
    assert result.exit_code == 0
    (report,) = json.loads(result.stdout)["data"]["backends"]
    assert (report["backend"], report["verdict"], report["differs"]) == ("numpy", "good", [])
    assert report["library"].startswith("numpy ")
    count = len(examination.vectors("programs")) + len(examination.vectors("trainings"))
    assert report["cases"] == count + len(selftest.CASES) + 1


def test_a_vector_that_differs_is_named_and_exits_with_7(run, findings, one_backend, monkeypatch):
    case = examination.vectors("trainings")[0]
    case["digests"][-1] = "00" * 32
    monkeypatch.setattr(examination, "vectors", lambda name: [case] if name == "trainings" else [])
    result = run("doctor", "--runtime")
    assert result.exit_code == 7
    assert f"first training: {case['name']}: the state before chunk" in result.stdout


def test_a_backend_that_cannot_be_had_is_a_notice_with_its_extra(run, findings, one_backend):
    def missing():
        raise ConfigError("backend numpy: numba is not installed", "pip install 'mlchain[numba]'")

    one_backend.append(missing)
    result = run("doctor", "--runtime")
    assert result.exit_code == 0
    assert "! numpy      numba is not installed" in result.stdout
    assert "pip install 'mlchain[numba]'" in result.stdout


def test_a_library_that_crashes_is_a_verdict_not_a_traceback(run, findings, one_backend):
    class Crashes(NumpyBackend):
        def bind(self, *arguments):
            raise RuntimeError("CUDA error: device-side assert")

    one_backend.append(Crashes)
    result = run("doctor", "--runtime")
    assert result.exit_code == 7
    assert "fails: CUDA error: device-side assert" in result.stdout


def test_missing_vectors_are_a_verdict_not_a_traceback(run, findings, one_backend, monkeypatch):
    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(examination, "vectors", missing)
    assert doctor_runtime.examine_backend("numpy").verdict == "bad"
