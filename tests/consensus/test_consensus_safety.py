"""The one signer: it never contradicts itself, and never goes back (`consensus/safety.py`)."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain import codec
from mlchain.consensus.evidence import verify_evidence, vote_evidence
from mlchain.consensus.safety import MAX_LAST_SIGN_BYTES, LastSign, Signer, SignRequest
from mlchain.crypto import SecretKey, is_signed
from mlchain.errors import DoubleSign, StoreCorrupted
from mlchain.ledger.commit import NIL, Vote, VoteKind, sign_bytes
from mlchain.ledger.validators import Validator, ValidatorSet

PROPOSAL, PREVOTE, PRECOMMIT = VoteKind
CHAIN_ID = "test"
KEY = SecretKey(bytes(32))
X, Y = b"X" * 32, b"Y" * 32


class Disk:
    """Keeps what the signer saves."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def save(self, data: bytes) -> None:
        self.content = data

    def signer(self) -> Signer:
        return Signer(KEY, CHAIN_ID, self.content, self.save)


def ask(
    kind: VoteKind, height: int, round_: int, block_id: bytes = X, pol: int = -1, ext: bytes = b""
) -> SignRequest:
    return SignRequest(kind, height, round_, block_id, pol, ext)


def message_of(r: SignRequest) -> bytes:
    return sign_bytes(CHAIN_ID, r.kind, r.height, r.round, r.block_id, r.pol_round, r.extension)


def test_it_signs_the_bytes_that_verifiers_check() -> None:
    request = ask(PRECOMMIT, 5, 1, X, -1, b"work")
    assert is_signed(KEY.public, message_of(request), Disk().signer().sign(request))


LAST = ask(PREVOTE, 5, 1)


@pytest.mark.parametrize(
    "request_",
    [
        ask(PREVOTE, 5, 1, Y),
        ask(PREVOTE, 5, 1, NIL),
        ask(PREVOTE, 5, 1, X, 0),
        ask(PREVOTE, 5, 1, X, -1, b"another extension"),
        ask(PROPOSAL, 5, 1),
        ask(PRECOMMIT, 5, 0),
        ask(PREVOTE, 5, 0),
        ask(PRECOMMIT, 4, 9),
        ask(PROPOSAL, 0, 0),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_it_refuses_whatever_contradicts_or_precedes_its_last_signature(
    request_: SignRequest, restarted: bool
) -> None:
    disk = Disk()
    signer = disk.signer()
    first = signer.sign(LAST)
    saved = disk.content
    if restarted:
        signer = disk.signer()
    with pytest.raises(DoubleSign):
        signer.sign(request_)
    assert disk.content == saved
    assert signer.sign(LAST) == first, "a refusal changes nothing"


@pytest.mark.parametrize(
    "request_", [ask(PRECOMMIT, 5, 1, Y), ask(PROPOSAL, 5, 2, Y), ask(PROPOSAL, 6, 0, Y)]
)
def test_it_signs_whatever_comes_later(request_: SignRequest) -> None:
    signer = Disk().signer()
    signer.sign(LAST)
    assert is_signed(KEY.public, message_of(request_), signer.sign(request_))


@pytest.mark.parametrize("restarted", [False, True])
def test_the_same_bytes_get_the_same_signature(restarted: bool) -> None:
    disk = Disk()
    signer = disk.signer()
    first = signer.sign(LAST)
    if restarted:
        signer = disk.signer()
    assert signer.sign(LAST) == first


def test_the_vote_signed_last_can_be_told_from_what_was_kept() -> None:
    disk = Disk()
    assert disk.signer().last_vote() is None
    for request, is_told in [
        (ask(PROPOSAL, 5, 1), False),
        (ask(PREVOTE, 5, 1), True),
        (ask(PRECOMMIT, 5, 1, X, -1, b"work"), False),  # only a digest of its extension was signed
        (ask(PRECOMMIT, 5, 2, NIL), True),
    ]:
        disk.signer().sign(request)
        vote = disk.signer().last_vote()
        assert (vote is not None) is is_told
        if vote is not None:
            assert vote.sign_bytes(CHAIN_ID) == message_of(request)
            assert is_signed(KEY.public, vote.sign_bytes(CHAIN_ID), vote.signature)


def test_the_last_signature_is_saved_before_it_is_returned() -> None:
    class FullDisk(Exception):
        pass

    saved: list[bytes] = []

    def save(data: bytes) -> None:
        saved.append(data)
        raise FullDisk

    signer = Signer(KEY, CHAIN_ID, None, save)
    with pytest.raises(FullDisk):
        signer.sign(LAST)
    last = codec.decode(LastSign, saved[0])
    assert (last.height, last.round, last.step) == (5, 1, PREVOTE)
    assert is_signed(KEY.public, last.message, last.signature)


def test_a_save_that_failed_leaves_the_next_request_free() -> None:
    """Nothing left the signer, so nothing can be contradicted; but what is on disk counts."""
    calls: list[bytes] = []

    def save_from_the_second_time_on(data: bytes) -> None:
        calls.append(data)
        if len(calls) == 1:
            raise OSError

    signer = Signer(KEY, CHAIN_ID, None, save_from_the_second_time_on)
    with pytest.raises(OSError):
        signer.sign(LAST)
    signer.sign(LAST)
    assert len(calls) == 2, "the repetition is saved as well"


@given(st.binary(max_size=200))
def test_garbage_instead_of_the_last_signature_stops_the_start(garbage: bytes) -> None:
    with pytest.raises(StoreCorrupted) as caught:
        Signer(KEY, CHAIN_ID, garbage, lambda data: None)
    assert caught.value.hint


def test_a_last_signature_that_is_too_large_stops_the_start() -> None:
    last = LastSign(1, 0, 1, b"x" * MAX_LAST_SIGN_BYTES, bytes(64))
    with pytest.raises(StoreCorrupted):
        Signer(KEY, CHAIN_ID, codec.encode(last), lambda data: None)


@given(st.data())
def test_whatever_it_is_asked_it_never_signs_two_things_for_one_place(data: st.DataObject) -> None:
    disk = Disk()
    signer = disk.signer()
    signed: dict[tuple[int, int, int], bytes] = {}
    places = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
    for _ in range(data.draw(st.integers(1, 12))):
        height, round_, kind = data.draw(places)
        request = ask(VoteKind(kind), height, round_, data.draw(st.sampled_from([X, Y, NIL])))
        if data.draw(st.booleans()):
            signer = disk.signer()
        try:
            signer.sign(request)
        except DoubleSign:
            continue
        assert signed.setdefault((height, round_, kind), message_of(request)) == message_of(request)
        assert (height, round_, kind) == max(signed)


def _votes(sign: object, requests: list[SignRequest]) -> list[Vote]:
    votes = []
    for r in requests:
        try:
            signature = sign(r)  # type: ignore[operator]
        except DoubleSign:
            continue
        votes.append(Vote(r.kind, r.height, r.round, r.block_id, KEY.public, b"", signature))
    return votes


def test_control_a_plain_key_asked_the_same_is_convicted_as_an_equivocator() -> None:
    requests = [ask(PREVOTE, 5, 1, block_id) for block_id in (X, Y)]
    members = ValidatorSet((Validator(KEY.public, 1),))

    one, other = _votes(lambda r: KEY.sign(message_of(r)), requests)
    offence = verify_evidence(vote_evidence(one, other), CHAIN_ID, members)
    assert (offence.offender, offence.height) == (KEY.public, 5)

    assert len(_votes(Disk().signer().sign, requests)) == 1


def test_the_order_of_requests_decides_which_of_two_votes_exists() -> None:
    for first, second in product((X, Y), repeat=2):
        requests = [ask(PRECOMMIT, 5, 0, first), ask(PRECOMMIT, 5, 0, second)]
        blocks = [v.block_id for v in _votes(Disk().signer().sign, requests)]
        assert blocks == ([first, first] if first == second else [first])
