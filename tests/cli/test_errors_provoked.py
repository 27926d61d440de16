"""Every documented exit code, provoked by what a user would do: message, hint, code and status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_node import JOB_ID, STATUS, job, problem, transaction

from mlchain.cli.failure import EXIT_CODES
from mlchain.client.keystore import dev_key
from mlchain.ledger import unixfs

TESTS = Path(__file__).parents[1]


class Provoked(NamedTuple):
    """A command line (a function of the fake node's URL), and what it is answered."""

    code: str
    line: Callable[[Any], tuple[str, ...]]
    message: str
    hint: str


def wrong_file(node: Any) -> tuple[str, ...]:
    Path("job.toml").write_text("[job]\nname = 7\n")
    return ("job", "quote", "job.toml", "--url", node.url)


def unknown_job(node: Any) -> tuple[str, ...]:
    node.routes["GET /v1/jobs/ff"] = problem(404, "not_found", "no job 'ff'", "mlchain job list")
    return ("job", "show", "ff", "--url", node.url)


def nobody(node: Any) -> tuple[str, ...]:
    return ("status", "--url", "http://127.0.0.1:9")


def busy(node: Any) -> tuple[str, ...]:
    node.routes["GET /v1/status"] = problem(429, "too_many_requests", "too many", "slow down")
    return ("status", "--url", node.url)


def refused(node: Any) -> tuple[str, ...]:
    submits(node)
    node.routes["POST /v1/txs"] = problem(409, "rejected", "the mempool is full", "wait")
    return ("submit-job", "flowers.toml", "--url", node.url)


def waited(node: Any) -> tuple[str, ...]:
    submits(node)
    node.routes[f"GET /v1/txs/{JOB_ID}"] = transaction(state="pending", height=None, code=None)
    return ("submit-job", "flowers.toml", "--url", node.url, "--timeout", "0.2")


def other_bytes(node: Any) -> tuple[str, ...]:
    cid = unixfs.cid_text(unixfs.cid_of(b"these"))
    node.routes[f"GET /v1/data/{cid}/block"] = b"those"
    return ("data", "get", cid, "-o", "got", "--url", node.url)


def no_password(node: Any) -> tuple[str, ...]:
    return ("keys", "new", "carol")


def submits(node: Any) -> None:
    rows = "size,kind\n" + "".join(f"{i}.5,{'small' if i < 10 else 'large'}\n" for i in range(20))
    Path("flowers.csv").write_text(rows)
    Path("flowers.toml").write_text(
        '[job]\nname = "flowers"\nfee = 120_000\n[data]\nsource = "flowers.csv"\n'
        '[model]\nkind = "softmax"\n[training]\nrate = 0.1\nbatch = 4\nsteps = 40\nchunk = 2\n'
    )
    node.routes["GET /v1/status"] = {**STATUS, "chain_id": "dev-1"}
    node.routes["POST /v1/data"] = lambda body: (
        200, b'{"cid": "%s"}' % unixfs.cid_text(unixfs.cid_of(body)).encode(),
    )  # fmt: skip
    alice = dev_key("alice").public.hex()
    node.routes[f"GET /v1/accounts/{alice}"] = {"balance": 10**9, "nonce": 5}
    node.routes["POST /v1/txs"] = [{"id": "ab" * 32}, {"id": JOB_ID}]
    node.routes[f"GET /v1/jobs/{JOB_ID}"] = job("submitted")


CASES = [
    Provoked("usage", lambda node: ("job", "show"), "Missing argument 'JOB'", "job show --help"),
    Provoked("usage", wrong_file, "job.toml, line 2: name", ""),
    Provoked("not_found", unknown_job, "no job 'ff'", "mlchain job list"),
    Provoked("unreachable", nobody, "no node answers at http://127.0.0.1:9", "mlchain testnet up"),
    Provoked("unreachable", busy, "too many", "slow down"),
    Provoked("rejected", refused, "the mempool is full", "wait"),
    Provoked("timeout", waited, "waited 0.2 s for", "mlchain status"),
    Provoked("verification_failed", other_bytes, "other bytes", ""),
    Provoked("locked", no_password, "nobody to ask", "--password-file"),
]
ELSEWHERE = {
    "internal": "test_a_bug_leaves_a_report_and_exits_with_1",
    "interrupted": "test_an_interrupted_command_exits_with_130",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.line.__name__}")
def test_each_exit_code_is_what_the_user_gets(run, run_json, node, home, case):
    shown = run(*case.line(node))
    assert shown.exit_code == EXIT_CODES[case.code], shown.stderr
    assert (shown.stdout, "Traceback" in shown.stderr) == ("", False)
    assert case.message in shown.stderr and case.hint in shown.stderr
    status, document = run_json(*case.line(node))
    error = document["error"]
    assert (status, error["exit_code"], error["code"]) == (
        shown.exit_code, shown.exit_code, case.code,
    )  # fmt: skip
    assert case.message in error["message"] and case.hint in error["hint"]


def test_no_exit_code_is_left_out():
    assert dict.fromkeys([case.code for case in CASES] + [*ELSEWHERE]).keys() == EXIT_CODES.keys()
    contract = (TESTS / "cli" / "test_contract.py").read_text()
    assert all(f"def {name}(" in contract for name in ELSEWHERE.values())
