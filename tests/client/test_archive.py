"""Whole chains in a file: what an audit finds when anything in it is not as it was."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import pytest
from factories import GrowingChain, make_chain, make_key, nudge
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from receipt_forger import receipt_of

from mlchain import codec
from mlchain.client import archive as archives
from mlchain.client.archive import Archive, read_archive, verify_archive, write_archive
from mlchain.client.ceremony import sign_genesis
from mlchain.client.receipt import verify_receipt
from mlchain.errors import CodecError, NotFound, VerificationFailed
from mlchain.ledger.block import Block, header_id
from mlchain.ledger.car import car_block, car_header
from mlchain.ledger.commit import CommitSignature, VoteKind, sign_bytes
from mlchain.ledger.content import ContentStore
from mlchain.ledger.unixfs import add
from mlchain.vm.receipt import Receipt


def archive_of(chain: GrowingChain, signatures=()) -> bytes:
    out = io.BytesIO()
    write_archive(out, chain.store, chain.content, signatures)
    return out.getvalue()


def audit(data: bytes, chain: GrowingChain, slices: int | None = 0, **options):
    return verify_archive(io.BytesIO(data), chain.genesis.hash, slices=slices, **options)


@dataclass
class Parts:
    """An archive taken apart, to be put together otherwise by somebody who knows all rules."""

    archive: Archive
    blocks: list[Block]
    files: dict[bytes, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes) -> Parts:
        archive, content, _ = read_archive(io.BytesIO(data))
        found = cls(archive, list(archives._pages(archive, content)))
        found.files = {name: content.get(name) for name in archive.files}
        return found

    def data(self, **changes) -> bytes:
        blocks: dict[bytes, bytes] = {}

        def keep(data):
            return add(data, blocks.__setitem__)

        pages = (keep(codec.encode(tuple(self.blocks))),)
        files = tuple(sorted(keep(data) for data in self.files.values()))
        manifest = replace(self.archive, **{"pages": pages, "files": files, **changes})
        head = car_header(keep(codec.encode(manifest)))
        return head + b"".join(car_block(cid, block) for cid, block in blocks.items())

    def certificate(self, block: Block, keys, chain: GrowingChain):
        """A certificate of a block by whoever holds `keys`."""
        old, id_ = self.archive.commit, header_id(block.header)

        def sign(key):
            text = sign_bytes(
                chain.genesis.chain_id, VoteKind.PRECOMMIT, block.header.height, old.round, id_
            )
            return CommitSignature(key.public, b"", key.sign(text))

        signed = sorted((sign(key) for key in keys), key=lambda s: s.validator)
        return replace(
            old, height=block.header.height, block_id=id_, signatures=tuple(signed)
        )  # fmt: skip


@pytest.fixture(scope="module")
def made(honest) -> tuple[GrowingChain, bytes]:
    return honest[0], archive_of(honest[0])


def validator_keys(chain):
    return [chain.keys[m.name] for m in chain.genesis.members if m.role == "validator"]


def test_a_chain_is_executed_again_and_all_its_jobs_re_run(made):
    chain, data = made
    report = audit(data, chain, None)
    assert report.failed is None
    assert [check.name for check in report.checks] == [
        "genesis", "headers", "state", "data", "re-run",
    ]  # fmt: skip
    assert report.rerun == report.chunks == report.drawn == 8
    assert report.miss(100) == "0"


def test_put_together_again_it_is_the_same(made):
    chain, data = made
    assert audit(Parts.of(data).data(), chain, None).failed is None, "the forger's tools work"


def test_certificates_are_followed_across_changes_of_the_validators(changed):
    chain, _ = changed
    report = audit(archive_of(chain), chain, None)
    assert report.failed is None
    assert "who changed 1 times" in report.checks[1].text
    assert len(report.disputes) == 1 and "validator-2" in report.disputes[0]


def test_signatures_of_the_genesis_are_counted_and_a_wrong_one_is_refused(made):
    chain, _ = made
    signed = [
        sign_genesis(chain.genesis, key, chain.genesis.hash.hex()) for key in chain.keys.values()
    ]
    report = audit(archive_of(chain, tuple(signed)), chain)
    assert "6 of 6 members signed" in report.checks[0].text and not report.notes
    signed[0] = replace(signed[0], signature=bytes(64))
    assert audit(archive_of(chain, tuple(signed)), chain).failed.name == "genesis"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_flipped_bit_anywhere_in_an_archive_is_found(made, data):
    chain, whole = made
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    spoilt = bytearray(whole)
    spoilt[place // 8] ^= 1 << place % 8
    assert audit(bytes(spoilt), chain).failed is not None


def test_an_archive_cut_off_anywhere_is_found(made):
    chain, whole = made
    for size in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        assert audit(whole[:size], chain).failed.name == "data"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_flipped_bit_anywhere_in_a_receipt_is_found(honest, data):
    chain, receipt = honest
    whole = codec.encode(receipt)
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    spoilt = bytearray(whole)
    spoilt[place // 8] ^= 1 << place % 8
    try:
        found = codec.decode(Receipt, bytes(spoilt), len(whole) + 9)
    except CodecError:
        return  # read_receipt: not a receipt, exit 7
    assert verify_receipt(found, chain.genesis, slices=0).failed is not None


def test_a_certificate_of_strangers_is_refused(made, monkeypatch):
    chain, data = made
    parts = Parts.of(data)
    strangers = [make_key(f"stranger-{i}") for i in range(4)]
    forged = parts.data(commit=parts.certificate(parts.blocks[-1], strangers, chain))
    report = audit(forged, chain)
    assert report.failed.name == "headers" and "quorum" in report.failed.text
    monkeypatch.setattr(archives, "verify_commit", lambda *_: None)
    assert audit(forged, chain).failed is None, "control: undefended it passes"


def test_a_block_that_was_never_executed_is_found_though_everybody_signed_it(made):
    """The last header promises another state; all validators certify it."""
    chain, data = made
    parts = Parts.of(data)
    last = parts.blocks[-1]
    parts.blocks[-1] = replace(last, header=replace(last.header, state_root=bytes(32)))
    keys = validator_keys(chain)
    forged = parts.data(commit=parts.certificate(parts.blocks[-1], keys, chain))
    report = audit(forged, chain)
    assert report.failed.name == "state" and "state_root differs" in report.failed.text
    parts.blocks[-1] = last
    rightly = parts.data(commit=parts.certificate(last, keys, chain))
    assert audit(rightly, chain).failed is None, "control: the same signatures over the truth"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda blocks: blocks.pop(3), "headers"),
        (lambda blocks: blocks.pop(), "headers"),
        (lambda blocks: blocks.append(blocks[-1]), "headers"),
        (lambda blocks: blocks.reverse(), "headers"),
    ],
)
def test_blocks_left_out_repeated_or_in_another_order_are_found(made, change, name):
    chain, data = made
    parts = Parts.of(data)
    change(parts.blocks)
    assert audit(parts.data(), chain).failed.name == name


def test_a_transaction_changed_in_a_block_is_found(made):
    chain, data = made
    parts = Parts.of(data)
    place = next(i for i, block in enumerate(parts.blocks) if block.body.transactions)
    block = parts.blocks[place]
    body = replace(block.body, transactions=block.body.transactions[1:])
    parts.blocks[place] = replace(block, body=body)
    report = audit(parts.data(), chain)
    assert report.failed.name == "state" and "body_root" in report.failed.text


def test_a_model_of_other_bytes_is_not_taken_for_the_model(made):
    """Its id is then another, so the archive holds a file that no job speaks of."""
    chain, data = made
    parts = Parts.of(data)
    largest = max(parts.files, key=lambda name: len(parts.files[name]))
    parts.files[largest] = parts.files[largest][:-1] + b"\x01"
    report = audit(parts.data(), chain, None)
    assert any("is not in the archive" in note for note in report.notes), "and the rest holds"
    assert not any("is not in" in note for note in audit(data, chain, None).notes), "control"
    lying = parts.data(files=parts.archive.files)
    assert audit(lying, chain, None).failed.name == "data", "the manifest names what is not there"


def test_without_its_data_a_job_is_a_note_and_nothing_of_it_counts(made):
    chain, data = made
    parts = Parts.of(data)
    parts.files = {}
    report = audit(parts.data(), chain, None)
    assert report.failed is None and report.chunks == report.rerun == 0
    assert (report.absent, audit(data, chain, None).absent) == (8, 0)
    assert any("is not in the archive" in note for note in report.notes)


def test_a_chunk_forged_and_signed_by_everybody_is_found_by_re_running_only():
    chain = make_chain(4, 2)
    chain.run_job(forge=lambda chunk, state: nudge(state) if chunk == 5 else state)
    data = archive_of(chain)
    report = audit(data, chain, None)
    assert report.failed.name == "re-run" and "chunk 5" in report.failed.text
    assert report.jobs[0].differs == 5
    assert audit(data, chain, 0).failed is None, "control: who re-runs nothing believes it"


def test_slices_are_drawn_over_all_jobs_and_the_same_seed_draws_the_same():
    chain = make_chain(4, 2)
    chain.run_job()
    chain.run_job()
    data = archive_of(chain)
    first, again, other = (audit(data, chain, 5, seed=seed) for seed in ("a", "a", "b"))
    drawn = [[row.drawn for row in report.jobs] for report in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert first.chunks == 16 and sum(len(one) for one in drawn[0]) == 5
    assert first.miss(100) == "0.688", "C(15, 5) / C(16, 5)"


def test_another_chain_is_refused(made):
    _, data = made
    report = verify_archive(io.BytesIO(data), bytes(32), slices=0)
    assert report.failed.name == "genesis"


class Zeros(io.RawIOBase):
    """A file of `left` zeros."""

    def __init__(self, left: int) -> None:
        self.left = left

    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


@pytest.mark.parametrize("is_defended", [True, False])
def test_a_small_archive_that_stands_for_long_files_is_soon_read(made, monkeypatch, is_defended):
    _chain, data = made
    manifest = Parts.of(data).archive
    blocks: dict[bytes, bytes] = {}
    files = [add(Zeros((64 << 20) - n), blocks.__setitem__) for n in range(2)]
    pages = [add(codec.encode(n), blocks.__setitem__) for n in range(2)]
    root = add(
        codec.encode(replace(manifest, pages=tuple(pages), files=tuple(sorted(files)))),
        blocks.__setitem__,
    )
    reads = 0
    get = ContentStore.get_block

    def count(store, cid):
        nonlocal reads
        reads += 1
        return get(store, cid)

    monkeypatch.setattr(ContentStore, "get_block", count)
    if not is_defended:
        walk = ContentStore._walk
        monkeypatch.setattr(
            ContentStore, "_walk", lambda store, cid, start=0, seen=None: walk(store, cid, start)
        )
    car = car_header(root) + b"".join(car_block(cid, block) for cid, block in blocks.items())
    read_archive(io.BytesIO(car))
    assert (reads <= 4 * len(blocks)) == is_defended


def test_a_page_that_stands_twice_is_refused(made):
    _chain, data = made
    _, content, _ = read_archive(io.BytesIO(data))
    manifest = Parts.of(data).archive
    blocks = {c: b for name in manifest.files for c, b in content.blocks(name)}
    for page in manifest.pages:
        blocks.update(content.blocks(page))
    root = add(codec.encode(replace(manifest, pages=manifest.pages * 3)), blocks.__setitem__)
    car = car_header(root) + b"".join(car_block(cid, block) for cid, block in blocks.items())
    with pytest.raises(VerificationFailed, match="page of blocks stands twice"):
        read_archive(io.BytesIO(car))


def test_a_pruned_node_makes_no_archive(made):
    chain = make_chain(1, 1)
    with pytest.raises(NotFound):
        archive_of(chain)
    chain.grow(5)
    chain.store.prune(4, 10)
    with pytest.raises(NotFound, match="are not here"):
        archive_of(chain)


def test_a_receipt_and_the_archive_speak_of_the_same_job(made, honest):
    chain, data = made
    report = audit(data, chain)
    assert report.jobs[0].job_id == receipt_of(chain, report.jobs[0].job_id).job_id
