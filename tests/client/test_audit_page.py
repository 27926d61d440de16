"""The page that an audit leaves: complete in itself, honest, and safe to open."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from mlchain.client.archive import verify_archive, write_archive
from mlchain.client.audit_page import (
    MAX_MARKS,
    chain_document,
    receipt_document,
    render,
    write_report,
)
from mlchain.client.receipt import Check, JobRow, Report, verify_receipt
from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError

TIME = "2026-01-01T00:00:00Z"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def document(honest):
    chain, receipt = honest
    report = verify_receipt(receipt, chain.genesis, slices=3, seed="mine")
    return receipt_document(report, chain.genesis.hash, "job.receipt", TIME)


def forged(**changes):
    report = Report(b"j" * 32, "s", [Check("re-run", False, "chunk 2 differs")], 8, 3, 2, (0, 1), 2)
    return receipt_document(report, b"g" * 32, "x", TIME) | changes


def test_the_page_loads_nothing_and_runs_nothing(document):
    page = render(document)
    assert not re.search(r"( src=|href|url\(|@import|<script|http:|https:|//)", page)
    assert "default-src 'none'" in page


def test_the_page_says_what_was_checked_and_what_could_have_been_missed(document):
    page = render(document)
    for check in document["checks"]:
        assert check["name"] in page
    assert f"missed it with p = {document['miss_1_in_100']}" in page
    assert "3 were drawn blindly" in page and "mine" in page
    assert page.count("█") == len(document["jobs"][0]["compared"])


def test_the_page_says_who_re_ran_what_when_the_job_ran(document, honest):
    said = document["jobs"][0]["attested"]
    assert set(said) == {m.name for m in honest[0].genesis.members if m.role == "validator"}
    assert all(0 < count <= document["chunks"] for count in said.values())
    page = render(document)
    assert all(f"{name} {count}" in page for name, count in said.items())


def test_what_differs_is_a_cross_in_words_in_shape_and_in_colour():
    page = render(forged())
    assert "✗ failed" in page and "✓ passed" not in page
    assert '<span class="d">x</span>' in page and "slice 2 differs" in page


def test_light_dark_and_paper_have_the_colours_of_the_house(document):
    page = render(document)
    for colour in ("#faf8f4", "#16202c", "#0f7a6c", "#c8402a", "#0e131a", "#37c3ad", "#ff7a62"):
        assert colour in page
    assert "prefers-color-scheme:dark" in page and "@media print" in page


def test_words_of_others_cannot_become_markup():
    evil = '"><script>alert(1)</script>'
    job = {
        "job": evil, "name": evil, "chunks": 1, "compared": [], "differs": None, "note": evil,
        "attested": {evil: 1},
    }  # fmt: skip
    check = {"name": evil, "passed": False, "text": evil}
    page = render(
        forged(subject=evil, checks=[check], notes=[evil], disputes=[evil], jobs=[job], seed=evil)
    )
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_long_job_is_drawn_in_part_and_counted_in_full():
    job = JobRow(b"j" * 32, "long", 10 * MAX_MARKS, compared=(0, 5 * MAX_MARKS))
    document = forged(
        jobs=[{"job": job.job_id.hex(), "name": "long", "chunks": job.chunks,
               "compared": list(job.compared), "differs": None, "note": "", "attested": {}}]
    )  # fmt: skip
    page = render(document)
    assert page.count("█") == 1 and page.count("·") == MAX_MARKS - 1
    assert f"2 of {10 * MAX_MARKS} slices" in page and f"the first {MAX_MARKS}" in page


def test_the_page_is_well_formed(document):
    class Balanced(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta",):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(render(document, {"address": "mlc1x", "signature": "00"}))
    assert parser.open == []


def test_the_document_beside_it_says_the_same(tmp_path, document):
    page, plain = write_report(tmp_path, "audit-x", document, SecretKey(bytes(32)))
    found = json.loads(plain.read_text())
    assert found["schema"] == "mlchain.audit-report/1"
    assert found["report"] == json.loads(json.dumps(document))
    assert found["signature"]["address"] in page.read_text()
    write_report(tmp_path, "audit-x", forged())
    assert "✗ failed" in page.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit-x.html", "audit-x.json"]
    with pytest.raises(ConfigError):
        write_report(plain, "y", document)


def test_a_chain_has_its_jobs_notes_and_disputes(changed):
    chain, _ = changed
    out = io.BytesIO()
    write_archive(out, chain.store, chain.content)
    report = verify_archive(io.BytesIO(out.getvalue()), chain.genesis.hash, slices=None)
    page = render(chain_document(report, chain.genesis.hash, TIME))
    assert "✓ passed</span> with 1 note" in page and "did not sign genesis" in page
    assert "validator-2" in page and page.count("█") == report.chunks


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_prints_it(tmp_path, document):
    page, _ = write_report(tmp_path, "audit-x", document)
    target = tmp_path / "page.pdf"
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", f"--print-to-pdf={target}", page.as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert target.read_bytes().startswith(b"%PDF")
