"""Whatever is decoded from somebody else's bytes is among the targets of the fuzzer."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path

import pytest
from targets import targets

from mlchain import codec

ROOT = Path(__file__).parents[2]
PLACES = ("node", "client", "p2p", "consensus", "web")
OWN = {
    "Program": "a shard's master has checked it; from our own process or cluster",
    "kinds": "messages of our own shards",
    "kind": "the table of consensus messages and of children; target 'message'",
    "_Saved": "the light client's own file",
    "_PAGE": "pages of an archive, behind their content id; target 'archive'",
    "_KINDS": "tables of log entries and evidence; targets 'log entry', 'evidence'",
    "Job": "a proven value of the state, behind its proof; target 'receipt'",
    "Segment": "a proven value of the state, behind its proof; target 'receipt'",
    "PlanRecord": "a proven value of the state, behind its proof; target 'receipt'",
    "Model": "a proven value of the state, behind its proof; target 'receipt'",
    "Renewed": "a proven value of the state, behind its proof; target 'receipt'",
    "ValidatorRecord": "a proven value of the state, behind its proof; target 'receipt'",
    "_BATCH": "an array of bytes; each is the target 'transaction'",
    "Prediction": "a proven value of the state, behind its proof",
    "RegisterModel": "what the caller has just encoded itself",
    "LastSign": "the signer's own file; target 'last signature'",
    "_Said": "what the signer itself encoded, in the same file",
}
"""What is decoded there and is no target under its own name, and why not."""


def decoded_kinds() -> dict[str, str]:
    """Names of the records that a call of `codec.decode` names, and where."""
    found: dict[str, str] = {}
    for place in PLACES:
        for path in sorted((ROOT / "mlchain" / place).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "codec.decode":
                    kind = call.args[0]
                    while isinstance(kind, ast.Subscript):
                        kind = kind.value
                    found[ast.unparse(kind)] = f"{path.relative_to(ROOT)}:{call.lineno}"
    return found


def covered_kinds(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the records that the targets decode out of their samples."""
    found: set[str] = set()
    decode = codec.decode

    def noted(kind, *rest, **named):
        found.add(getattr(kind, "__name__", ""))
        return decode(kind, *rest, **named)

    every = targets()
    monkeypatch.setattr(codec, "decode", noted)
    for target in every.values():
        if isinstance(target.decode, partial) and target.decode.args:
            found.add(getattr(target.decode.args[0], "__name__", ""))
        else:
            target.decode(target.samples[0])
    return found


def test_every_record_that_peers_and_files_bring_is_spoilt_by_the_fuzzer(monkeypatch):
    known = covered_kinds(monkeypatch)
    decoded = decoded_kinds()
    missing = {kind: at for kind, at in decoded.items() if kind not in known | OWN.keys()}
    assert missing == {}
    assert set(OWN) <= set(decoded), "an exception for what is decoded no more"
