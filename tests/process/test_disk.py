"""A disk that fails stops the node; what should follow the write is never done."""

import errno
import os
from pathlib import Path

import pytest
import trio
from harness import key, make_genesis

from mlchain.errors import StoreCorrupted
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.node import wal as wal_module
from mlchain.node.agreement import Agreement
from mlchain.node.main import _first_cause
from mlchain.node.node import Keys, Node, Storage
from mlchain.node.wal import LastSignFile, WriteAheadLog
from mlchain.p2p.memory import Hub, MemoryTransport


class FullDisk(MemoryKeyValue):
    """Takes the genesis and nothing more."""

    writes = 0

    def write(self, puts, deletes=()):
        self.writes += 1
        if self.writes > 1:
            raise StoreCorrupted("chain: cannot write: no space left")
        super().write(puts, deletes)


def run_alone(folder: Path, disk: MemoryKeyValue, kick=lambda node: node.agreement.poke()) -> Node:
    """Run a chain of one validator until it fails, for at most some seconds."""
    genesis = make_genesis(1, 0)
    keys = Keys(key("validator-0/peer"), key("validator-0"), None)
    storage = Storage(disk, MemoryKeyValue(), folder / "wal", folder / "spool")
    transport = MemoryTransport(Hub(), keys.peer.public, {})
    node = Node(genesis, keys, storage, transport)

    async def scenario():
        with trio.move_on_after(3):
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                with trio.CancelScope():
                    kick(node)

    trio.run(scenario, strict_exception_groups=True)
    return node


def from_the_network(node: Node) -> None:
    """Make the node want a block, and let a handler of the transport be who finds that out."""
    node.agreement._driver.demand(node.clock.monotonic_ms())
    try:
        node.agreement.receive(bytes(32), b"")
    except StoreCorrupted:
        return  # the transport logs it and goes on


@pytest.mark.parametrize("kick", [from_the_network, lambda node: node.agreement.poke()])
def test_a_block_that_cannot_be_stored_ends_the_node(tmp_path, kick, monkeypatch):
    monkeypatch.setattr(Agreement, "_wanted_at", lambda self: self._last_block_ms + 20)
    with pytest.raises(BaseExceptionGroup) as caught:
        run_alone(tmp_path, FullDisk(), kick)
    assert "no space left" in str(_first_cause(caught.value))
    assert isinstance(_first_cause(caught.value), StoreCorrupted)


def test_nothing_is_signed_after_a_write_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(Agreement, "_wanted_at", lambda self: self._last_block_ms + 20)
    signed = []
    monkeypatch.setattr(LastSignFile, "save", lambda self, data: data and signed.append(data))

    def fail(self, record, sync):
        raise StoreCorrupted("log: cannot write")

    monkeypatch.setattr(WriteAheadLog, "append", fail)
    with pytest.raises(BaseExceptionGroup):
        run_alone(tmp_path, MemoryKeyValue())
    assert signed == []


def test_control_with_a_good_disk_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Agreement, "_wanted_at", lambda self: self._last_block_ms + 20)
    assert run_alone(tmp_path, MemoryKeyValue()).chain.height > 3


@pytest.mark.parametrize("call", ["log", "last-sign"])
def test_a_disk_that_takes_only_a_part_is_an_error_and_not_a_torn_record(
    tmp_path, monkeypatch, call
):
    log, last = WriteAheadLog(tmp_path), LastSignFile(tmp_path / "last-sign")
    log.append(b"first", True)
    last.save(b"first")
    whole = os.write
    monkeypatch.setattr(wal_module.os, "write", lambda fd, data: whole(fd, data[:3]))
    with pytest.raises(StoreCorrupted, match=os.strerror(errno.ENOSPC)):
        log.append(b"second", True) if call == "log" else last.save(b"second")
    monkeypatch.undo()
    assert WriteAheadLog(tmp_path).records() == [b"first"]
    assert last.load() == b"first"


RECORDS = [b"one", b"second", b"the third of them"]


@pytest.fixture
def log(tmp_path):
    log = WriteAheadLog(tmp_path)
    for record in RECORDS:
        log.append(record, True)
    return tmp_path / "log"


def test_whatever_is_missing_at_the_end_the_whole_records_before_are_read(log):
    data = log.read_bytes()
    starts = [0, 15, 33, len(data)]
    for size in range(len(data) + 1):
        log.write_bytes(data[:size])
        whole = sum(size >= start for start in starts) - 1
        assert WriteAheadLog(log.parent).records() == RECORDS[:whole]
        assert log.stat().st_size == starts[whole], "the rest is cut off"


def test_a_changed_bit_is_never_taken_for_a_shorter_log_but_in_the_last_record(log):
    data = log.read_bytes()
    for bit in range(8 * 33):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        log.write_bytes(spoilt)
        with pytest.raises(StoreCorrupted):
            WriteAheadLog(log.parent).records()
        assert log.read_bytes() == spoilt, "nothing is thrown away"


def test_zeros_that_a_file_system_left_at_the_end_are_cut_off(log):
    data = log.read_bytes()
    log.write_bytes(data + bytes(100))
    assert WriteAheadLog(log.parent).records() == RECORDS
    assert log.read_bytes() == data
    log.write_bytes(data + bytes(100) + b"x")
    with pytest.raises(StoreCorrupted):
        WriteAheadLog(log.parent).records()


def test_after_a_cut_the_log_goes_on(log):
    log.write_bytes(log.read_bytes()[:-1])
    again = WriteAheadLog(log.parent)
    assert again.records() == RECORDS[:2]
    again.append(b"next", True)
    assert WriteAheadLog(log.parent).records() == [*RECORDS[:2], b"next"]
