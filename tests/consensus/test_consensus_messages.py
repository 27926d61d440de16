"""What travels: round trips, refusals, and bounds that hold before anything is built."""

import tracemalloc

import pytest
from agreement_lab import (
    HEIGHT,
    PRECOMMIT,
    PREVOTE,
    block_of,
    commit_of,
    id_of,
    key_of,
    proposal,
    vote,
    votes,
)
from base.record_strategies import values
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlchain import codec
from mlchain.consensus.actions import Snapshot
from mlchain.consensus.inbox import identify_block
from mlchain.consensus.journal import Intent, decode_entry, intent_entry, noted_entry
from mlchain.consensus.messages import (
    MAX_MESSAGE_BYTES,
    MAX_STATUS_ENTRIES,
    BlockProposal,
    Decided,
    Have,
    Message,
    Status,
    Want,
    decode_message,
    encode_message,
)
from mlchain.consensus.safety import SignRequest
from mlchain.crypto import SecretKey, digest
from mlchain.errors import CodecError, InvalidBlock, StoreCorrupted
from mlchain.ledger.block import MAX_BLOCK_BYTES, Block, Body, Header, body_root, header_id
from mlchain.ledger.commit import MAX_EXTENSION_BYTES, MAX_ROUND, CommitSignature, Vote
from mlchain.ledger.validators import MAX_VALIDATORS

POLKA = tuple(votes("abc", PREVOTE, 0, "X"))
EXAMPLES: dict[str, Message] = {
    "proposal": proposal("a", 0, "X"),
    "proposal with polka": proposal("b", 1, "X", 0, POLKA),
    "prevote": vote("a", PREVOTE, 0, "X"),
    "prevote nil": vote("a", PREVOTE, 0, "nil"),
    "precommit": vote("a", PRECOMMIT, 0, "X"),
    "status": Status(HEIGHT, -1, 0, (Have(1, 0, id_of("X"), b"\x07"), Have(2, 0, b"", b"\x01"))),
    "want": Want(HEIGHT, 0, b""),
    "decided": Decided(commit_of("abc", "X")),
}


def largest() -> dict[str, Message]:
    """Return the largest message of each kind that the bounds allow."""
    big = 2**63 - 1
    key, signature, block_id = b"\xff" * 32, bytes(64), b"\xff" * 32
    extension = bytes(MAX_EXTENSION_BYTES)
    keys = sorted(digest("test/key", bytes([i])) for i in range(MAX_VALIDATORS))
    polka = tuple(Vote(1, big, MAX_ROUND - 1, block_id, k, b"", signature) for k in keys)
    head = replace(
        proposal("a", 0, "X").proposal, height=big, round=MAX_ROUND, pol_round=MAX_ROUND - 1
    )
    head = replace(head, block_id=block_id, validator=key)
    have = Have(2, MAX_ROUND, block_id, bytes(MAX_VALIDATORS // 8))
    signatures = tuple(CommitSignature(k, extension, signature) for k in keys)
    commit = replace(commit_of("abc", "X"), height=big, round=MAX_ROUND, signatures=signatures)
    return {
        "proposal": BlockProposal(head, polka, bytes(MAX_BLOCK_BYTES)),
        "vote": Vote(2, big, MAX_ROUND, block_id, key, extension, signature),
        "status": Status(big, MAX_ROUND, 2, (have,) * MAX_STATUS_ENTRIES),
        "want": Want(big, MAX_ROUND, block_id),
        "decided": Decided(commit),
    }


@pytest.mark.parametrize("about", EXAMPLES)
def test_a_message_comes_out_as_it_went_in(about: str) -> None:
    data = encode_message(EXAMPLES[about])
    assert decode_message(data) == EXAMPLES[about]


@pytest.mark.parametrize("about", ["proposal", "vote", "status", "want", "decided"])
def test_the_largest_message_of_each_kind_fits_its_bound(about: str) -> None:
    message = largest()[about]
    data = encode_message(message)
    assert len(data) <= MAX_MESSAGE_BYTES
    assert decode_message(data) == message


@settings(max_examples=150, deadline=None)
@given(st.one_of(*(values(kind) for kind in (BlockProposal, Vote, Status, Want, Decided))))
def test_whatever_is_taken_has_exactly_one_encoding(message: Message) -> None:
    data = encode_message(message)
    try:
        taken = decode_message(data)
    except CodecError:
        return  # senseless on its face
    assert taken == message
    assert encode_message(taken) == data


@pytest.mark.parametrize("about", EXAMPLES)
def test_a_message_cut_short_at_any_byte_is_refused(about: str) -> None:
    data = encode_message(EXAMPLES[about])
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode_message(data[:end])


@pytest.mark.parametrize("about", EXAMPLES)
def test_a_changed_byte_gives_another_message_or_an_error_never_a_crash(about: str) -> None:
    data = encode_message(EXAMPLES[about])
    for at in range(len(data)):
        for change in (0x01, 0x10, 0x80, 0xFF):
            spoilt = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
            try:
                other = decode_message(spoilt)
            except CodecError:
                continue
            assert other != EXAMPLES[about]
            assert encode_message(other) == spoilt


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for tag in (b"", b"\x01", b"\x02", b"\x03", b"\x05"):
        with pytest.raises(CodecError):
            decode_message(tag + data)


def peak_bytes_refusing(data: bytes) -> int:
    """Return how much memory it takes at most to refuse `data`, besides `data` itself."""
    tracemalloc.start()
    with pytest.raises(CodecError):
        decode_message(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("tag", [1, 2, 3, 4, 5])
def test_an_oversized_message_is_refused_before_anything_is_made_of_it(tag: int) -> None:
    lists = 5 << 20  # empty lists, of 56 bytes each once they are made
    data = bytes([tag, 0xDD]) + lists.to_bytes(4, "big") + b"\x90" * lists
    assert peak_bytes_refusing(data) < 2 * len(data)


@pytest.mark.parametrize("count", [1 << 16, 1 << 20, (1 << 32) - 1])
def test_a_short_message_that_promises_a_long_list_is_refused_without_making_it(count: int) -> None:
    data = b"\x03\x94\x04\x00\x00\xdd" + count.to_bytes(4, "big")
    assert peak_bytes_refusing(data) < 1 << 16


# ---- senseless on its face ----------------------------------------------------------------

SENSELESS: dict[str, Message] = {
    "an id of 31 bytes": replace(vote("a", PREVOTE, 0, "X"), block_id=bytes(31)),
    "an extended prevote": vote("a", PREVOTE, 0, "X", extension=b"work"),
    "an extended nil": vote("a", PRECOMMIT, 0, "nil", extension=b"work"),
    "a polka of this round": proposal("a", 0, "X", 0, POLKA),
    "a polka without its round": proposal("b", 1, "X", -1, POLKA),
    "a round without its polka": proposal("b", 1, "X", 0),
    "a polka for another block": proposal("b", 1, "Y", 0, POLKA),
    "a polka of another round": proposal("c", 2, "X", 1, POLKA),
    "a polka of another height": proposal("b", 1, "X", 0, POLKA, height=HEIGHT + 1),
    "a polka of precommits": proposal("b", 1, "X", 0, votes("abc", PRECOMMIT, 0, "X")),
    "a polka not in key order": proposal("b", 1, "X", 0, POLKA[::-1]),
    "a polka with one vote twice": proposal("b", 1, "X", 0, POLKA[:1] * 2),
}


@pytest.mark.parametrize("about", SENSELESS)
def test_what_no_honest_validator_makes_is_refused_unchecked(about: str) -> None:
    with pytest.raises(CodecError):
        decode_message(encode_message(SENSELESS[about]))


@pytest.mark.parametrize(
    "broken",
    [
        Status(HEIGHT, MAX_ROUND + 1, 0, ()),
        Status(HEIGHT, -2, 0, ()),
        Status(HEIGHT, 0, 3, ()),
        Status(-1, 0, 0, ()),
        Status(HEIGHT, 0, 0, (Have(0, 0, b"", b""),)),
        Status(HEIGHT, 0, 0, (Have(1, 0, b"", bytes(MAX_VALIDATORS // 8 + 1)),)),
        Status(HEIGHT, 0, 0, (Have(1, 0, b"", b""),) * (MAX_STATUS_ENTRIES + 1)),
        Want(HEIGHT, MAX_ROUND + 1, b""),
        Want(HEIGHT, 0, bytes(33)),
        replace(vote("a", PREVOTE, 0, "X"), kind=0),
        replace(vote("a", PREVOTE, 0, "X"), kind=3),
        replace(vote("a", PRECOMMIT, 0, "X"), extension=bytes(MAX_EXTENSION_BYTES + 1)),
        replace(vote("a", PREVOTE, 0, "X"), signature=bytes(63)),
        replace(vote("a", PREVOTE, 0, "X"), height=2**63),
        replace(proposal("a", 0, "X"), block=bytes(MAX_BLOCK_BYTES + 1)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_field_out_of_bounds_is_refused(broken: Message) -> None:
    with pytest.raises(CodecError):
        decode_message(encode_message(broken))


# ---- the log's entries --------------------------------------------------------------------


def test_entries_of_the_log_come_out_as_they_went_in() -> None:
    for message in EXAMPLES.values():
        if isinstance(message, Vote | BlockProposal):
            assert decode_entry(noted_entry(HEIGHT, message)) == message
    snapshot = Snapshot(HEIGHT, 1, 2, 0, id_of("X"), 0, id_of("X"))
    request = SignRequest(PRECOMMIT, HEIGHT, 1, id_of("X"), -1, b"work")
    wanted = Intent(HEIGHT, snapshot, request, block_of("X"))
    assert decode_entry(intent_entry(snapshot, request, block_of("X"))) == wanted


def test_a_spoilt_entry_says_that_the_log_is_not_what_was_written() -> None:
    data = noted_entry(HEIGHT, vote("a", PREVOTE, 0, "X"))
    for end in range(len(data)):
        with pytest.raises(StoreCorrupted):
            decode_entry(data[:end])
    status = b"\x01" + codec.encode((HEIGHT, encode_message(EXAMPLES["status"])))
    with pytest.raises(StoreCorrupted, match="only proposals and votes"):
        decode_entry(status)


# ---- blocks as the driver sees them -------------------------------------------------------


def _block(body: Body, root: bytes) -> Block:
    zero = bytes(32)
    key = SecretKey(zero).public
    header = Header(1, "test", 4, 9, zero, key, zero, zero, root, zero, zero, 0)
    return Block(header, body)


def test_a_block_s_id_is_that_of_its_header_if_the_header_commits_to_the_body() -> None:
    body = Body(None, (), (), (b"transaction",))
    block = _block(body, body_root(body))
    assert identify_block(codec.encode(block)) == header_id(block.header)
    with pytest.raises(InvalidBlock):
        identify_block(codec.encode(_block(body, bytes(32))))
    with pytest.raises(CodecError):
        identify_block(codec.encode(block) + b"\x00")
    with pytest.raises(CodecError):
        identify_block(key_of("a"))
