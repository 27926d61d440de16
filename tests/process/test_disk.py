"""A disk that fails stops the node; what should follow the write is never done."""

import errno
import os
from pathlib import Path

import pytest
import trio
from harness import key, make_genesis

from mlchain.errors import StoreCorrupted
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.node import files as files_module
from mlchain.node.agreement import Agreement
from mlchain.node.machine import Storage
from mlchain.node.main import first_cause
from mlchain.node.membership import Keys
from mlchain.node.node import Node
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
    assert "no space left" in str(first_cause(caught.value))
    assert isinstance(first_cause(caught.value), StoreCorrupted)


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
    monkeypatch.setattr(files_module.os, "write", lambda fd, data: whole(fd, data[:3]))
    with pytest.raises(StoreCorrupted, match=os.strerror(errno.ENOSPC)):
        log.append(b"second", True) if call == "log" else last.save(b"second")
    monkeypatch.undo()
    assert WriteAheadLog(tmp_path).records() == [b"first"]
    assert last.load() == b"first"
