"""Content ids equal the ones `ipfs add` prints; what the store returns hashes to its name."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mlchain.errors import CodecError, NotFound, StoreCorrupted, VerificationFailed
from mlchain.ledger import unixfs
from mlchain.ledger.content import ContentStore, cid_of, cid_text, parse_cid
from mlchain.ledger.kv import LevelKeyValue, MemoryKeyValue

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/ledger/cids.json").read_text())[
    "vectors"
]
# The rest with an independent Python implementation that reproduces those and kubo's own examples.
# Contents: SHAKE256("mlchain-cid-v1:" + size).
REFERENCE = {vector["size"]: vector["kubo-cli"] for vector in VECTORS} | {
    262_145: "bafybeiewtsrf7f5qif72zscy74j2xpro4c2wds7nvmbmfrcrjxq57ltjde",
    45_613_056: "bafybeifptd7ajvv6ovhyhob3ggprass7byavy2iizjnsyjlgsjkfaorb4a",
    45_613_057: "bafybeid4x5lzeox3e3velidincgd2nrs7bfnhst4uhq5bposqracsdfrc4",
    45_875_200: "bafybeia7g4umilt3advxhegjykmcqr3l5f7ce4d3mehys4aayglemptbca",
}
NEW = {vector["size"]: vector["unixfs-v1-2025"] for vector in VECTORS}
SMALL = [size for size in REFERENCE if size < 2_000_000]


def content(size: int) -> bytes:
    return hashlib.shake_256(b"mlchain-cid-v1:%d" % size).digest(size)


@pytest.fixture
def store():
    return ContentStore(MemoryKeyValue())


@contextmanager
def tiny_layout():
    """The same layout with leaves of 4 bytes and 3 links, so that deep trees are small."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(unixfs.LAYOUTS, "kubo-cli", unixfs.Layout(4, 3, ""))
        patched.setitem(unixfs.LAYOUTS, "unixfs-v1-2025", unixfs.Layout(5, 4, ""))
        yield


# Ids


@pytest.mark.parametrize("size", REFERENCE)
def test_the_id_is_the_one_ipfs_prints(size):
    assert cid_text(cid_of(content(size))) == REFERENCE[size]


@pytest.mark.parametrize("size", NEW)
def test_the_id_in_the_profile_of_2025_is_the_one_ipfs_prints(size):
    assert cid_text(cid_of(content(size), "unixfs-v1-2025")) == NEW[size]


@pytest.mark.parametrize("profile", unixfs.LAYOUTS)
@pytest.mark.parametrize("size", [*SMALL, 1_048_576, 3_000_000])
def test_a_store_keeps_files_in_either_profile_and_knows_which(store, size, profile):
    cid = store.put(content(size), profile)
    assert store.get(cid) == content(size)
    fits_both = size <= unixfs.LAYOUTS["kubo-cli"].chunk_bytes
    assert store.profile(cid) == ("kubo-cli" if fits_both else profile)
    assert unixfs.find_profile(cid, content(size)) == store.profile(cid)
    assert unixfs.find_profile(cid, content(size) + b"x") == ""


@pytest.mark.parametrize("size", SMALL)
def test_a_stream_has_the_id_of_its_bytes(size):
    class Dribble(io.BytesIO):  # a pipe: less than what was asked for
        def read(self, size=-1):
            return super().read(min(size, 60_000))

    for stream in (io.BytesIO, Dribble):
        assert cid_text(cid_of(stream(content(size)))) == REFERENCE[size]


def test_naming_a_large_stream_needs_little_memory():
    script = (
        "import resource\n"
        "from mlchain.ledger.content import cid_of\n"
        "class Zeros:\n"
        "    left = 400 << 20\n"
        "    def read(self, n):\n"
        "        n = min(n, self.left); self.left -= n; return bytes(n)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "cid_of(Zeros())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(done.stdout) < 20_000  # KiB


def test_content_beyond_the_bound_is_refused_while_it_is_read(monkeypatch, store):
    monkeypatch.setattr(unixfs, "MAX_CONTENT_BYTES", 300_000)
    store.put(bytes(300_000))
    with pytest.raises(CodecError, match="larger"):
        store.put(bytes(300_001))


def test_the_text_form_goes_there_and_back():
    for size in SMALL:
        cid = cid_of(content(size))
        assert len(cid) == 36 and parse_cid(cid_text(cid)) == cid


GOOD = REFERENCE[100]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        GOOD[:-1],
        GOOD + "a",
        GOOD.upper(),
        "z" + GOOD[1:],
        GOOD[:-1] + "1",
        GOOD[:-1] + "é",
        GOOD[:-1] + "j",  # the last character carries bits that belong to no byte
        "QmNo56SUWGgubLzsC8DChy8SGZbMP4j8vdm61VeeobrTjX",
        cid_text(b"\x01\x71\x12\x20" + bytes(32)),
        cid_text(b"\x01\x55\x1e\x20" + bytes(32)),
        "b" * 100_000,
    ],
)
def test_another_text_is_no_content_id(text):
    with pytest.raises(CodecError, match="not a content id") as caught:
        parse_cid(text)
    assert len(caught.value.message) < 200


# The store


@pytest.mark.parametrize("size", SMALL)
def test_what_was_put_is_got_and_streamed(store, size):
    cid = store.put(content(size))
    assert cid_text(cid) == REFERENCE[size]
    assert store.has(cid) and store.size(cid) == size and store.missing(cid) == []
    assert store.get(cid) == b"".join(store.read(cid)) == content(size)


def test_a_large_file_goes_through_the_disk(tmp_path):
    kv = LevelKeyValue(tmp_path / "content")
    store = ContentStore(kv)
    cid = store.put(io.BytesIO(content(50_000_000)))
    assert cid_text(cid) == REFERENCE[50_000_000]
    digest = hashlib.shake_256(b"mlchain-cid-v1:50000000").digest(50_000_000)
    assert store.get(cid) == digest
    kv.close()


def test_what_is_not_there_is_not_found(store):
    cid = cid_of(content(1_048_577))
    assert not store.has(cid) and not store.has_block(cid) and store.missing(cid) == [cid]
    for read in (store.get, store.size, store.get_block, lambda cid: list(store.read(cid))):
        with pytest.raises(NotFound, match="bafybeibjbl2l"):
            read(cid)


def test_a_file_larger_than_allowed_is_refused_before_it_is_read(store):
    cid = store.put(content(1_048_577))
    for leaf in list(store._kv.items(b"b\x01\x55")):
        store._kv.write({}, [leaf[0]])
    with pytest.raises(CodecError, match="1048577 bytes, at most 1048576"):
        store.get(cid, 1_048_576)  # and no leaf was asked for, else it were NotFound
    with pytest.raises(NotFound):
        store.get(cid, 1_048_577)


@pytest.mark.parametrize("node", [False, True])
def test_a_flipped_byte_is_found_and_the_block_named_and_a_peer_can_mend_it(store, node):
    data = content(1_048_577)
    cid = store.put(data)
    victim = cid if node else unixfs.children(store._root(cid), store.get_block(cid))[2].cid
    block = store.get_block(victim)
    store._kv.write({b"b" + victim: bytes([block[0] ^ 1]) + block[1:]})
    with pytest.raises(StoreCorrupted, match=cid_text(victim)) as caught:
        store.get(cid)
    assert "fetch" in caught.value.hint
    store.put_block(victim, block)
    assert store.get(cid) == data


def test_damage_the_disk_itself_reports_also_names_the_block(store, monkeypatch):
    cid = store.put(b"x")

    def fail(key):
        raise StoreCorrupted("checksum")

    monkeypatch.setattr(store._kv, "get", fail)
    with pytest.raises(StoreCorrupted, match=cid_text(cid)):
        store.get_block(cid)


# Exchange between peers


def fetch(source: ContentStore, target: ContentStore, cid: bytes, limit=1024) -> int:
    """What two nodes do: ask what is missing, send those blocks, until nothing is."""
    rounds = 0
    while wanted := target.missing(cid, limit):
        assert len(wanted) <= limit and len(dict.fromkeys(wanted)) == len(wanted)
        for block in wanted:
            target.put_block(block, source.get_block(block))
        rounds += 1
        assert rounds < 1000
    return rounds


def test_a_peer_fetches_a_file_block_by_block(store):
    target = ContentStore(MemoryKeyValue())
    cid = store.put(content(1_048_577))
    assert fetch(store, target, cid) == 2  # the node, then the five leaves
    assert target.get(cid) == content(1_048_577)


@given(st.binary(max_size=400), st.integers(1, 7), st.sampled_from(list(unixfs.LAYOUTS)))
@settings(max_examples=60, deadline=None)
def test_any_file_arrives_whole_through_any_limit(data, limit, profile):
    with tiny_layout():
        source, target = ContentStore(MemoryKeyValue()), ContentStore(MemoryKeyValue())
        cid = source.put(data, profile)
        fetch(source, target, cid, limit)
        assert target.get(cid) == source.get(cid) == data
        for kind in (b"b", b"i"):
            assert list(target._kv.items(kind)) == list(source._kv.items(kind))


def test_a_file_of_equal_leaves_is_asked_for_once(store):
    target = ContentStore(MemoryKeyValue())
    cid = store.put(bytes(50 << 20))
    fetch(store, target, cid)
    assert target.has(cid) and len(list(target._kv.items(b"b"))) < 10


def test_wrong_bytes_are_not_stored(store):
    cid = cid_of(b"right")
    with pytest.raises(VerificationFailed):
        store.put_block(cid, b"wrong")
    assert not store.has_block(cid)
    store.put_block(cid, b"right")
    assert store.has(cid)


def test_a_block_beyond_its_bound_is_refused_before_it_is_hashed(store, monkeypatch):
    for kind, limit in (
        (unixfs._RAW, unixfs.MAX_LEAF_BYTES),
        (unixfs._NODE, unixfs.MAX_NODE_BYTES),
    ):
        block = bytes(limit + 1)
        with pytest.raises(CodecError, match="at most"):
            store.put_block(kind + hashlib.sha256(block).digest(), block)


@pytest.mark.parametrize(
    "cid", [b"", bytes(36), b"\x01\x55\x12\x20" + bytes(31), b"\x01\x55\x12\x20" + bytes(33)]
)
def test_other_bytes_are_no_block_id(store, cid):
    for call in (store.has, store.missing, lambda cid: store.put_block(cid, b"")):
        with pytest.raises(CodecError, match="not a content id"):
            call(cid)


def test_the_largest_node_fits_its_bound():
    for layout in unixfs.LAYOUTS.values():
        size = layout.chunk_bytes * layout.links**3
        full = unixfs._make_node(size, 3, layout, [bytes(36)] * layout.links)
        assert len(full) <= unixfs.MAX_NODE_BYTES
        assert layout.chunk_bytes <= unixfs.MAX_LEAF_BYTES


# Content somebody made to do harm: its blocks hash to their names, its shape is no file's


def plant(store: ContentStore, block: bytes) -> bytes:
    cid = unixfs._NODE + hashlib.sha256(block).digest()
    store.put_block(cid, block)
    return cid


def node(sizes: list[int], cids: list[bytes], total: int | None = None, tsize=None) -> bytes:
    """A well-formed dag-pb file node with whatever numbers its maker likes."""
    f, v = unixfs._field, unixfs._varint
    links = b"".join(
        f(2, f(1, cid) + f(2, b"") + b"\x18" + v(size if tsize is None else tsize))
        for cid, size in zip(cids, sizes, strict=True)
    )
    total = sum(sizes) if total is None else total
    data = b"\x08\x02\x18" + v(total) + b"".join(b"\x20" + v(size) for size in sizes)
    return links + f(1, data)


LEAF, REST = bytes(262_144), b"rest"


def leaves(store) -> list[bytes]:
    return [store.put(LEAF), store.put(REST)]


def test_the_planted_node_with_true_numbers_is_a_file(store):
    cid = plant(store, node([262_144, 4], leaves(store)))
    assert store.get(cid) == LEAF + REST and cid == cid_of(LEAF + REST)


@pytest.mark.parametrize(
    "sizes, cids, options",
    [
        ([4, 262_144], [1, 0], {}),  # a short leaf first
        ([262_144, 5], [0, 1], {}),  # says 5, has 4
        ([262_144, 4], [0, 0], {}),
        ([262_144, 4], [0, 1], {"total": 262_149}),
        ([262_144, 4], [0, 1], {"total": 2**62}),
        ([262_144, 4], [0, 1], {"tsize": 1}),
        ([262_144], [0], {}),  # a node over one leaf has another name for the same bytes
        ([], [], {}),
        ([4], [1], {}),
        ([0] * 174, [1] * 174, {}),
    ],
)
def test_a_node_that_is_no_file_of_this_layout_is_refused(store, sizes, cids, options):
    known = leaves(store)
    cid = plant(store, node(sizes, [known[i] for i in cids], **options))
    assert not store.has(cid)
    for call in (store.missing, store.get, lambda cid: list(store.read(cid))):
        with pytest.raises(VerificationFailed, match="layout"):
            call(cid)


def test_a_leaf_under_the_name_of_a_node_is_refused(store):
    # The same bytes can be named as a leaf and as a node; one file must not get two ids.
    rest_as_node = plant(store, REST)
    cid = plant(store, node([262_144, 4], [store.put(LEAF), rest_as_node]))
    with pytest.raises(VerificationFailed):
        store.get(cid)


def test_a_node_that_claims_its_own_length_is_not_taken_for_its_content(store):
    block = node([], [], total=6)
    assert len(block) == 6
    cid = plant(store, block)
    assert not store.has(cid)
    with pytest.raises(VerificationFailed):
        store.get(cid)


def test_a_tower_of_empty_links_does_not_keep_the_reader_busy(store):
    # 174 links to a node of 174 links to ...: 30 levels in 300 KB would be 174^30 visits.
    cid = store.put(b"")
    for _ in range(30):
        cid = plant(store, node([0] * 174, [cid] * 174))
    with pytest.raises(VerificationFailed):
        store.get(cid)
    with pytest.raises(VerificationFailed):
        store.missing(cid)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_mutated_node_is_refused_or_is_the_id_of_what_it_returns(data):
    store = ContentStore(MemoryKeyValue())
    block = bytearray(node([262_144, 4], leaves(store)))
    match data.draw(st.sampled_from(["flip", "cut", "add", "any"])):
        case "flip":
            block[data.draw(st.integers(0, len(block) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del block[data.draw(st.integers(0, len(block) - 1)) :]
        case "add":
            block += data.draw(st.binary(min_size=1, max_size=4))
        case "any":
            block = bytearray(data.draw(st.binary(max_size=60)))
    cid = plant(store, bytes(block))
    try:
        assert cid_of(store.get(cid)) == cid
    except (VerificationFailed, NotFound):
        pass
    except CodecError as error:
        assert "at most" in error.message


def test_a_huge_claimed_size_allocates_nothing(store):
    cid = plant(store, node([262_144, 4], leaves(store), total=2**34 - 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((VerificationFailed, CodecError)):
        store.get(cid)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
