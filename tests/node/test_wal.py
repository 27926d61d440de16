"""What agreement writes to disk: what survives, what is cut off, and what stops the start."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlchain.consensus.journal import MAX_ENTRY_BYTES
from mlchain.consensus.safety import MAX_LAST_SIGN_BYTES, Signer, SignRequest
from mlchain.crypto import SecretKey
from mlchain.errors import DoubleSign, StoreCorrupted
from mlchain.ledger.commit import VoteKind
from mlchain.node import files as files_module
from mlchain.node import wal as wal_module
from mlchain.node.wal import LastSignFile, WriteAheadLog

RECORDS = [b"a vote", b"", b"x" * 60, bytes(20), b"the last"]
HEAD_BYTES = 28
MARK_BYTES = 26


def write_log(folder: Path, records: list[bytes] = RECORDS, sync: bool = False) -> Path:
    log = WriteAheadLog(folder)
    for record in records:
        log.append(record, sync)
    log.close()
    return folder / "log"


def read_log(folder: Path) -> list[bytes]:
    log = WriteAheadLog(folder)
    try:
        return log.records()
    finally:
        log.close()


class Spy:
    """Notes the calls to the system that matter here, and may fail one of them."""

    NAMES = ("open", "write", "fdatasync", "fsync", "replace", "ftruncate")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fails_at = -1
        for name in self.NAMES:
            monkeypatch.setattr(files_module.os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            self.calls.append(name)
            if len(self.calls) - 1 == self.fails_at:
                raise KeyboardInterrupt  # the process ends here
            return real(*args, **options)

        return call


# ---- the log ------------------------------------------------------------------------------


def test_a_new_log_is_empty_and_its_folder_is_made(tmp_path: Path) -> None:
    assert read_log(tmp_path / "deep" / "wal") == []


def test_records_survive_closing_and_opening(tmp_path: Path) -> None:
    write_log(tmp_path)
    assert read_log(tmp_path) == RECORDS


def test_records_written_after_reading_stand_behind_the_others(tmp_path: Path) -> None:
    write_log(tmp_path)
    log = WriteAheadLog(tmp_path)
    assert log.records() == RECORDS
    log.append(b"more", sync=True)
    log.close()
    assert read_log(tmp_path) == [*RECORDS, b"more"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_any_records_come_back_up_to_any_crash(
    tmp_path: Path, records: list[bytes], data: st.DataObject
) -> None:
    (tmp_path / "log").unlink(missing_ok=True)
    path = write_log(tmp_path, records)
    size = data.draw(st.integers(MARK_BYTES, path.stat().st_size))
    os.truncate(path, size)
    lengths = [HEAD_BYTES + len(record) for record in records]
    ends = [MARK_BYTES + sum(lengths[: i + 1]) for i in range(len(records))]
    assert read_log(tmp_path) == records[: sum(end <= size for end in ends)]


def test_a_last_record_torn_at_any_byte_is_cut_off_and_the_log_goes_on(tmp_path: Path) -> None:
    path = write_log(tmp_path)
    whole = path.read_bytes()
    start = len(whole) - HEAD_BYTES - len(RECORDS[-1])
    for size in range(start, len(whole)):
        path.write_bytes(whole[:size])
        log = WriteAheadLog(tmp_path)
        assert log.records() == RECORDS[:-1]
        assert path.stat().st_size == start
        log.append(b"new", sync=True)
        log.close()
        assert read_log(tmp_path) == [*RECORDS[:-1], b"new"]


def test_a_last_payload_that_was_not_filled_is_cut_off(tmp_path: Path) -> None:
    path = write_log(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(RECORDS[-1])] + bytes(len(RECORDS[-1])))
    assert read_log(tmp_path) == RECORDS[:-1]


@pytest.mark.parametrize("zeros", [1, 11, 12, 13, 4096])
def test_zeros_at_the_end_are_cut_off(tmp_path: Path, zeros: int) -> None:
    path = write_log(tmp_path)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(bytes(zeros))
    assert read_log(tmp_path) == RECORDS
    assert path.stat().st_size == size


def test_a_flipped_byte_in_what_was_on_disk_stops_the_start(tmp_path: Path) -> None:
    path = write_log(tmp_path, sync=True)
    whole = path.read_bytes()
    for at in range(len(whole) - HEAD_BYTES - len(RECORDS[-1])):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(StoreCorrupted) as caught:
            read_log(tmp_path)
        assert str(path) in caught.value.message
        assert "last-sign" in caught.value.hint
        assert path.stat().st_size == len(whole), "what is damaged is left for whoever looks"


def test_a_gap_in_what_no_sync_covered_is_cut_off_with_all_behind_it(tmp_path: Path) -> None:
    """The disk writes in any order: zeros where one record should be, and the next one whole."""
    log = WriteAheadLog(tmp_path)
    for record, sync in ((b"an intent", True), (b"a note", False), (b"the next intent", True)):
        log.append(record, sync)
    log.close()
    path = tmp_path / "log"
    whole = path.read_bytes()
    start = MARK_BYTES + HEAD_BYTES + len(b"an intent")
    end = start + HEAD_BYTES + len(b"a note")
    gap = whole[:start] + bytes(end - start) + whole[end:]
    path.write_bytes(gap)
    assert read_log(tmp_path) == [b"an intent"], "the sync may not have returned"
    path.write_bytes(whole)
    log = WriteAheadLog(tmp_path)
    log.append(b"it returned, for this was written after it", sync=False)
    log.close()
    longer = path.read_bytes()
    path.write_bytes(longer[:start] + bytes(end - start) + longer[end:])
    with pytest.raises(StoreCorrupted):
        read_log(tmp_path)


def test_no_bytes_of_a_peer_pass_for_a_record_of_ours(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path / "theirs")
    log.append(b"forged", sync=True)
    log.append(b"forged", sync=True)
    log.close()
    forged = (tmp_path / "theirs" / "log").read_bytes()[MARK_BYTES:]
    path = write_log(tmp_path, [b"ours", forged])
    data = bytearray(path.read_bytes())
    data[MARK_BYTES + 2 * HEAD_BYTES + len(b"ours") - 1] ^= 1  # the head before the forgery
    path.write_bytes(data)
    assert read_log(tmp_path) == [b"ours"]


def test_control_with_the_salt_known_it_would(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "WriteAheadLog", partial(WriteAheadLog, random_bytes=bytes))
    with pytest.raises(StoreCorrupted):
        test_no_bytes_of_a_peer_pass_for_a_record_of_ours(tmp_path)


def test_a_log_of_another_version_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    with pytest.raises(StoreCorrupted, match="version"):
        read_log(tmp_path)
    (tmp_path / "log").write_bytes(bytes(100))
    with pytest.raises(StoreCorrupted, match="version"):
        read_log(tmp_path)


def test_a_record_larger_than_any_entry_is_none(tmp_path: Path) -> None:
    write_log(tmp_path, [bytes(MAX_ENTRY_BYTES + 1)])
    assert read_log(tmp_path) == []


def test_the_largest_entry_there_is_comes_back(tmp_path: Path) -> None:
    write_log(tmp_path, [b"x" * MAX_ENTRY_BYTES, b"y"])
    assert read_log(tmp_path) == [b"x" * MAX_ENTRY_BYTES, b"y"]


def test_what_decided_heights_left_goes_when_it_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_module, "MAX_DECIDED_BYTES", 200)
    log = WriteAheadLog(tmp_path)
    log.append(b"old", sync=True)
    log.forget()
    assert log.records() == []
    log.append(b"x" * 200, sync=True)
    log.forget()
    log.append(b"new", sync=True)
    log.close()
    assert read_log(tmp_path) == [b"new"]


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    assert stat.S_IMODE(write_log(tmp_path).stat().st_mode) == 0o600


# ---- what is on the disk, and when --------------------------------------------------------


def test_a_synced_record_is_on_disk_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = WriteAheadLog(tmp_path)
    spy = Spy(monkeypatch)
    log.append(b"a note", sync=False)
    assert spy.calls == ["write"]
    log.append(b"an intent", sync=True)
    assert spy.calls == ["write", "write", "fdatasync"]
    log.close()


def test_sync_is_asked_of_the_log_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = WriteAheadLog(tmp_path)
    synced: list[str] = []
    monkeypatch.setattr(
        files_module.os, "fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    log.append(b"an intent", sync=True)
    log.close()
    assert synced == [str(tmp_path / "log")]


def test_the_name_of_a_new_log_is_on_disk_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    log = WriteAheadLog(tmp_path)
    assert spy.calls == ["open", "write", "fdatasync", "replace", "open", "fsync", "open"]
    log.close()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_disk_that_does_not_take_a_record_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    log = WriteAheadLog(tmp_path)

    def fail(*args: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files_module.os, call, fail)
    with pytest.raises(StoreCorrupted, match="Input/output error") as caught:
        log.append(b"an intent", sync=True)
    assert caught.value.hint
    log.close()


# ---- the last signature -------------------------------------------------------------------


def test_the_last_signature_survives_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "last-sign"
    assert LastSignFile(path).load() is None
    LastSignFile(path).save(b"a long first signature")
    assert LastSignFile(path, may_be_missing=False).load() == b"a long first signature"
    LastSignFile(path).save(b"second")
    assert LastSignFile(path, may_be_missing=False).load() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_on_disk_before_it_takes_its_name_and_the_name_before_save_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LastSignFile(tmp_path / "last-sign")
    spy = Spy(monkeypatch)
    file.save(b"signature")
    assert spy.calls == ["open", "write", "fdatasync", "replace", "open", "fsync"]


@pytest.mark.parametrize(
    ("fails_at", "found"),
    [(0, b"old"), (1, b"old"), (2, b"old"), (3, b"old"), (4, b"new"), (5, b"new")],
)
def test_a_crash_at_any_point_leaves_the_old_or_the_new_and_nothing_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, found: bytes
) -> None:
    path = tmp_path / "last-sign"
    LastSignFile(path).save(b"old")
    with monkeypatch.context() as patch:
        Spy(patch).fails_at = fails_at
        with pytest.raises(KeyboardInterrupt):
            LastSignFile(path).save(b"new")
    assert LastSignFile(path, may_be_missing=False).load() == found
    LastSignFile(path).save(b"newer")
    assert LastSignFile(path, may_be_missing=False).load() == b"newer"


def test_a_lost_file_stops_the_start_unless_nothing_can_have_been_signed(tmp_path: Path) -> None:
    path = tmp_path / "last-sign"
    with pytest.raises(StoreCorrupted) as caught:
        LastSignFile(path, may_be_missing=False).load()
    assert caught.value.hint
    assert not path.exists()
    assert LastSignFile(path, may_be_missing=True).load() is None
    assert LastSignFile(path, may_be_missing=False).load() is None, "now an empty file says so"


def test_a_file_too_large_to_be_one_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "last-sign"
    path.write_bytes(b"x" * MAX_LAST_SIGN_BYTES)
    assert LastSignFile(path).load() == b"x" * MAX_LAST_SIGN_BYTES, "the signer judges it"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte, on paper
    with pytest.raises(StoreCorrupted):
        LastSignFile(path).load()


def test_signer_and_file_together_never_contradict_themselves_over_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever call the process ends, the signature did not leave, or binds the next start."""
    key = SecretKey(bytes(32))
    for fails_at in range(6):
        path = tmp_path / f"last-sign-{fails_at}"
        vote = SignRequest(VoteKind.PREVOTE, 4, 0, b"X" * 32, -1, b"")
        other = SignRequest(VoteKind.PREVOTE, 4, 0, b"Y" * 32, -1, b"")
        file = LastSignFile(path)
        signer = Signer(key, "test", file.load(), file.save)
        with monkeypatch.context() as patch:
            Spy(patch).fails_at = fails_at
            with pytest.raises(KeyboardInterrupt):
                signer.sign(vote)
        again = Signer(key, "test", LastSignFile(path).load(), file.save)
        again.sign(other) if fails_at < 4 else again.sign(vote)
        with pytest.raises(DoubleSign):
            Signer(key, "test", LastSignFile(path).load(), file.save).sign(
                vote if fails_at < 4 else other
            )
