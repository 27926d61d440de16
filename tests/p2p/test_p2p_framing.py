"""Frames, queues and answers as bytes, without any network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlchain import errors
from mlchain.errors import CodecError
from mlchain.p2p import framing
from mlchain.p2p.framing import FrameDecoder, FrameQueue, encode_frame
from mlchain.p2p.transport import CHANNELS, Channel, PeerRefused

CHANNEL = st.sampled_from(sorted(CHANNELS))


@given(
    frames=st.lists(st.tuples(CHANNEL, st.binary(max_size=300)), max_size=20),
    cuts=st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_come_out_in_order_however_the_stream_is_cut(frames, cuts):
    wire = b"".join(encode_frame(channel, payload, "validator") for channel, payload in frames)
    decoder = FrameDecoder("validator")
    got, at, turn = [], 0, 0
    while at < len(wire):
        step = cuts[turn % len(cuts)]
        got += decoder.feed(wire[at : at + step])
        at, turn = at + step, turn + 1
    assert got == frames


@pytest.mark.parametrize("channel", sorted(CHANNELS))
def test_an_oversized_frame_is_refused_on_its_header_alone(channel):
    limit = CHANNELS[channel].max_bytes
    fits = framing.FRAME_HEADER.pack(limit, channel)
    assert list(FrameDecoder("validator").feed(fits)) == []
    with pytest.raises(CodecError, match="at most"):
        list(FrameDecoder("validator").feed(framing.FRAME_HEADER.pack(limit + 1, channel)))


def test_an_unknown_channel_is_refused():
    with pytest.raises(CodecError, match="no such channel"):
        list(FrameDecoder("validator").feed(framing.FRAME_HEADER.pack(1, 99) + b"x"))


def test_only_validators_speak_on_the_consensus_channel():
    wire = encode_frame(Channel.CONSENSUS, b"vote", "validator")
    assert list(FrameDecoder("validator").feed(wire)) == [(Channel.CONSENSUS, b"vote")]
    with pytest.raises(CodecError, match="not for a observer"):
        list(FrameDecoder("observer").feed(wire))


def test_frames_before_a_bad_one_are_still_delivered():
    wire = encode_frame(Channel.STATUS, b"good", "validator") + b"\xff" * 5
    got = []
    with pytest.raises(CodecError):
        got.extend(FrameDecoder("validator").feed(wire))
    assert got == [(Channel.STATUS, b"good")]


def test_we_cannot_send_what_the_others_would_refuse():
    for channel, payload, role in [
        (99, b"", "validator"),
        (Channel.CONSENSUS, b"", "worker"),
        (Channel.STATUS, bytes(CHANNELS[Channel.STATUS].max_bytes + 1), "validator"),
    ]:
        with pytest.raises(CodecError):
            encode_frame(channel, payload, role)


def test_a_queue_is_bounded_in_frames_and_in_bytes():
    queue = FrameQueue(max_frames=3, max_bytes=100)
    assert [queue.push(b"x") for _ in range(5)] == [True, True, True, False, False]
    queue = FrameQueue(max_frames=10, max_bytes=100)
    assert [queue.push(bytes(40)) for _ in range(3)] == [True, True, False]
    assert queue.pop() == (2, bytes(80))
    assert queue.push(bytes(100)), "room again"


def test_small_frames_leave_in_one_batch_and_a_large_one_alone():
    queue = FrameQueue()
    for frame in (bytes(10), bytes(20), bytes(60_000), bytes(5)):
        queue.push(frame)
    assert [queue.pop() for _ in range(3)] == [(2, bytes(30)), (1, bytes(60_000)), (1, bytes(5))]


@pytest.mark.parametrize("kind", [errors.NotFound, CodecError, errors.Rejected])
def test_errors_that_concern_the_asker_arrive_as_themselves(kind):
    error = framing.decode_error(framing.encode_error(kind("why")))
    assert type(error) is kind
    assert error.message == "why"


def test_other_errors_say_that_the_peer_failed_and_nothing_of_its_bugs():
    broken = framing.decode_error(framing.encode_error(errors.StoreCorrupted("block 7")))
    assert isinstance(broken, PeerRefused)
    assert (broken.code, broken.message) == ("StoreCorrupted", "block 7")
    bug = framing.decode_error(framing.encode_error(ValueError("secret path")))
    assert isinstance(bug, PeerRefused)
    assert "secret" not in bug.message


@given(st.binary(max_size=200))
def test_any_bytes_as_an_error_answer_give_an_error(body):
    try:
        error = framing.decode_error(body)
    except CodecError as refused:
        error = refused
    assert isinstance(error, errors.MlchainError)


def test_an_answer_is_checked_on_its_header():
    assert framing.check_reply_header(framing.REPLY_HEADER.pack(0, 10), 10) == (0, 10)
    for header in [(0, 11), (1, framing.MAX_ERROR_BYTES + 1), (2, 0)]:
        with pytest.raises(CodecError):
            framing.check_reply_header(framing.REPLY_HEADER.pack(*header), 10)
