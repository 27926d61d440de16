"""What an audit found, as one document for programs and one page for people, to be kept.

The page is a single file: no script, nothing loaded from anywhere, light and dark, and it prints.
Everything in it that came from a receipt or an archive is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from mlchain import __version__, crypto
from mlchain.client.archive import ChainReport, absent_text
from mlchain.client.receipt import Check, JobRow, Report
from mlchain.client.strip import DIFFERS, EQUAL, MAX_MARKS, UNSEEN, draw_strip
from mlchain.client.userfile import make_folder, write_file
from mlchain.crypto import SecretKey, address

_STYLE = """
:root{color-scheme:light dark;--paper:#faf8f4;--card:#fff;--ink:#16202c;--muted:#566170;
--line:#e6e1d8;--equal:#0f7a6c;--differs:#c8402a;--waiting:#8a5f0f;--link:#1d4f91}
@media (prefers-color-scheme:dark){:root{--paper:#0e131a;--card:#151c26;--ink:#e8e4dc;
--muted:#9aa5b4;--line:#2a3442;--equal:#37c3ad;--differs:#ff7a62;--waiting:#e0aa4a;--link:#8db8f5}}
body{font:15px/1.5 system-ui,sans-serif;font-variant-numeric:tabular-nums;background:var(--paper);
color:var(--ink);max-width:60em;margin:2em auto;padding:0 1em}
section{background:var(--card);border:1px solid var(--line);border-radius:4px;padding:.8em 1.2em;
margin:1em 0;break-inside:avoid}
h1{font-size:1.5em}h2{font-size:1.05em;margin:.2em 0 .6em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.25em 1em .25em 0;border-bottom:1px solid var(--line)}th{color:var(--muted);font-weight:400}
td,code,p.strip{overflow-wrap:anywhere}code,p.strip{font-family:ui-monospace,monospace}
p.strip{line-height:1.2;letter-spacing:-.02em;margin:.3em 0}
.e{color:var(--equal)}.d{color:var(--differs);font-weight:700}.u,small{color:var(--muted)}
.w{color:var(--waiting)}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--muted:#444;
--line:#bbb;--equal:#0f7a6c;--differs:#c8402a;--waiting:#8a5f0f}body{margin:0;max-width:none}}
"""


def receipt_document(report: Report, genesis: bytes, source: str, made_at: str) -> dict[str, Any]:
    """Return an audit of a receipt for programs."""
    job = JobRow(
        report.job_id,
        source,
        report.chunks,
        (),
        tuple(sorted(report.compared)),
        report.differs,
        report.attested,
    )
    return _document(report, genesis, f"receipt of job {report.job_id.hex()}", made_at, [job])


def chain_document(report: ChainReport, genesis: bytes, made_at: str) -> dict[str, Any]:
    """Return an audit of a whole chain for programs."""
    subject = f"chain {report.chain_id}, blocks 1 to {report.last}"
    return _document(report, genesis, subject, made_at, report.jobs) | {
        "notes": report.notes, "disputes": report.disputes, "last": report.last,
        "absent": report.absent,
    }  # fmt: skip


def prediction_document(
    checks: list[Check], request: bytes, genesis: bytes, made_at: str
) -> dict[str, Any]:
    """Return an audit of a prediction's receipt for programs; an answer has no slices."""
    return _facts(checks, genesis, f"receipt of prediction {request.hex()}", made_at)


def _document(
    report: Report | ChainReport, genesis: bytes, subject: str, made_at: str, jobs: list[JobRow]
) -> dict[str, Any]:
    return _facts(report.checks, genesis, subject, made_at) | {
        "chunks": report.chunks,
        "drawn": report.drawn,
        "rerun": report.rerun,
        "seed": report.seed,
        "miss_1_in_10": report.miss(10) if report.chunks else "1",
        "miss_1_in_100": report.miss(100) if report.chunks else "1",
        "jobs": [
            {"job": job.job_id.hex(), "name": job.name, "chunks": job.chunks,
             "compared": list(job.compared), "differs": job.differs, "note": job.note,
             "attested": dict(sorted(job.attested.items()))}
            for job in jobs
        ],
    }  # fmt: skip


def _facts(checks: list[Check], genesis: bytes, subject: str, made_at: str) -> dict[str, Any]:
    return {
        "subject": subject,
        "passed": all(check.passed for check in checks),
        "genesis": genesis.hex(),
        "made_at": made_at,
        "version": __version__,
        "checks": [{"name": c.name, "passed": c.passed, "text": c.text} for c in checks],
        "notes": [],
        "disputes": [],
    }


def sign_document(document: Mapping[str, Any], key: SecretKey) -> dict[str, str]:
    """Return the auditor's signature of a document: of what it says, not of how it is spaced."""
    return {
        "address": address(key.public),
        "key": key.public.hex(),
        "signature": key.sign(signed_bytes(document)).hex(),
    }


def signed_bytes(document: Mapping[str, Any]) -> bytes:
    """Return what an auditor signs of a document."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return crypto.digest("mlchain/audit-report", text.encode())


def write_report(
    folder: Path, name: str, document: Mapping[str, Any], key: SecretKey | None = None
) -> tuple[Path, Path]:
    """Write `NAME.html` and `NAME.json`, in place of those of an earlier audit; return both.

    Raises:
        ConfigError: they cannot be written.
    """
    signature = sign_document(document, key) if key else None
    data = {"schema": "mlchain.audit-report/1", "report": document, "signature": signature}
    page, plain = folder / f"{name}.html", folder / f"{name}.json"
    make_folder(folder, hint := "name another --report")
    for path, text in (
        (page, render(document, signature)),
        (plain, json.dumps(data, indent=1) + "\n"),
    ):
        write_file(path, text, hint)
    return page, plain


def render(document: Mapping[str, Any], signature: Mapping[str, str] | None = None) -> str:
    """Return the page."""
    passed = document["passed"]
    verdict = '<span class="e">✓ passed</span>' if passed else '<span class="d">✗ failed</span>'
    count = len(document["notes"])
    notes = f" with {count} note{'s' if count != 1 else ''}" if count and passed else ""
    facts = [
        ("genesis", f"<code>{escape(document['genesis'])}</code>"),
        ("audited", f"{escape(document['made_at'])}, mlchain {escape(document['version'])}"),
    ]
    if "seed" in document:
        seed = f"<code>{escape(document['seed'])}</code> draws the same slices again"
        facts.append(("seed", seed))
    if signature:
        who, what = escape(signature["address"]), escape(signature["signature"])
        signed = f"<code>{who}</code>, who signed the JSON beside this page: <code>{what}</code>"
        facts.append(("auditor", signed))
    parts = [
        _section("", _table(facts)),
        _section("Checks", _table([_check(check) for check in document["checks"]])),
        _section("Slices run again by the auditor", _chance(document) + _jobs(document["jobs"]))
        if "jobs" in document
        else "",
        _section("Notes", _list(document["notes"], "w")) if document["notes"] else "",
        _section("Found wrong on the chain, and punished", _list(document["disputes"], "d"))
        if document["disputes"]
        else "",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Audit: {escape(document['subject'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{verdict}{notes}</h1><p>Audit of {escape(document['subject'])}</p>"
        + "".join(parts)
        + "<p><small>An audit does not show that data were true or well chosen, nor who owns a "
        "key. Every word on this page was computed on the auditor's machine.</small></p>"
        "</body></html>\n"
    )


def _check(check: Mapping[str, Any]) -> tuple[str, str]:
    kind, mark, word = ("e", "✓", "holds") if check["passed"] else ("d", "✗", "does not hold")
    return check["name"], f'<span class="{kind}">{mark} {word}</span>  {escape(check["text"])}'


def _chance(document: Mapping[str, Any]) -> str:
    rerun, chunks, drawn = (document[name] for name in ("rerun", "chunks", "drawn"))
    text = f"<p>{rerun} of {chunks} slices were run again; {drawn} were drawn blindly.</p>"
    if document.get("absent"):
        text += f'<p class="w">{escape(absent_text(document["absent"]))}.</p>'
    if drawn >= chunks:
        return text
    rows = [
        (f"had {words} slices been forged", f"this audit would have missed it with p = {p}")
        for words, p in (
            ("1 in 10", escape(document["miss_1_in_10"])),
            ("1 in 100", escape(document["miss_1_in_100"])),
        )
    ]
    return text + _table(rows)


def _jobs(jobs: list[dict[str, Any]]) -> str:
    return "".join(
        f"<h2>{escape(job['name'])} <small><code>{escape(job['job'][:8])}</code> "
        f"{escape(job['note'])}</small></h2>{_strip(job)}{_attested(job)}"
        for job in jobs
    )


def _attested(job: Mapping[str, Any]) -> str:
    """Return who said what when the job ran: the word of validators, not of this audit."""
    if not job["attested"]:
        return ""
    said = ", ".join(f"{escape(name)} {count}" for name, count in job["attested"].items())
    return f"<p><small>attested when the job ran, slices by validator: {said}</small></p>"


def _strip(job: Mapping[str, Any]) -> str:
    marks = [UNSEEN] * min(job["chunks"], MAX_MARKS)
    for chunk in job["compared"]:
        marks[chunk : chunk + 1] = [EQUAL] if chunk < len(marks) else []
    if job["differs"] is not None and job["differs"] < len(marks):
        marks[job["differs"]] = DIFFERS
    label = f"{len(job['compared'])} of {job['chunks']} slices re-run and equal"
    if job["differs"] is not None:
        label += f"; slice {job['differs']} differs"
    if job["chunks"] > MAX_MARKS:
        label += f"; the first {MAX_MARKS} are shown"
    return draw_strip("".join(marks), label)


def _section(title: str, body: str) -> str:
    return f"<section>{f'<h2>{escape(title)}</h2>' if title else ''}{body}</section>"


def _table(rows: list[tuple[str, str]]) -> str:
    """Return a table; the second column is HTML already."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{text}</td></tr>" for name, text in rows)
    return f"<table>{body}</table>"


def _list(texts: list[str], kind: str) -> str:
    return "<ul>" + "".join(f'<li class="{kind}">{escape(text)}</li>' for text in texts) + "</ul>"
