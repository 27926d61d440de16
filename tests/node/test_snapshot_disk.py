"""The folder of snapshots goes, fills or fails: the node goes on, and takes the next one."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import structlog
import trio
from factories import GrowingChain, make_chain

from mlchain.errors import NotFound, StoreCorrupted
from mlchain.node.snapshots import SnapshotFolder, Snapshots


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    chain = make_chain(1, 1)
    chain.grow(2)
    return chain


def put_a_file_there(folder: Path, patch) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def refuse(kind: int):
    def spoil(folder: Path, patch) -> None:
        def fail(*args, **kwargs):
            raise OSError(kind, "refused")

        patch.setattr(Path, "mkdir", fail)

    return spoil


FAULTS = {
    "a file in its place": put_a_file_there,
    "no space": refuse(errno.ENOSPC),
    "not allowed": refuse(errno.EACCES),
}


def take_one(snapshots: Snapshots, chain: GrowingChain, until=None) -> list[str]:
    """Let the task that takes snapshots run until `until` holds, or it fails; return its log."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(snapshots.run)
            snapshots.on_block(chain.store.height)
            with trio.fail_after(60):
                while not until():
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as logs:

        def failed() -> bool:
            return any(line["event"] == "snapshot-failed" for line in logs)

        until = until or failed
        trio.run(main)
    return [line["event"] for line in logs]


def test_a_folder_that_is_gone_is_made_again(chain, tmp_path):
    folder = SnapshotFolder(tmp_path / "snapshots")
    shutil.rmtree(folder.folder)
    assert folder.begun() == folder.heights() == []
    with pytest.raises(NotFound):
        folder.read(2, 0)
    folder.remove(2)
    events = take_one(Snapshots(chain.store, folder, 1), chain, lambda: folder.heights() == [2])
    assert "snapshot-failed" not in events


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_disk_refuses_is_said_and_the_next_snapshot_is_taken(chain, tmp_path, fault):
    folder = SnapshotFolder(tmp_path / "snapshots")
    snapshots = Snapshots(chain.store, folder, 1)
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[fault](folder.folder, patch)
        assert take_one(snapshots, chain) == ["snapshot-failed"]
    if folder.folder.is_file():
        folder.folder.unlink()
    take_one(snapshots, chain, lambda: folder.heights() == [2])


@pytest.mark.parametrize("act", [
    lambda folder: folder.read(2, 0),
    lambda folder: folder.read_part(2, 0),
    lambda folder: folder.remove(2),
    lambda folder: SnapshotFolder(folder.folder),
])  # fmt: skip
def test_a_folder_that_cannot_be_read_is_an_error_of_ours(tmp_path, act):
    folder = SnapshotFolder(tmp_path / "snapshots")
    put_a_file_there(folder.folder, None)
    with pytest.raises(StoreCorrupted, match="snapshots"):
        act(folder)


def test_control_a_folder_that_is_listed_without_care_ends_the_node(chain, tmp_path, monkeypatch):
    def begun(self) -> list[int]:
        return [int(path.name) for path in self.folder.iterdir()]

    monkeypatch.setattr(SnapshotFolder, "begun", begun)
    folder = SnapshotFolder(tmp_path / "snapshots")
    shutil.rmtree(folder.folder)
    with pytest.raises(BaseExceptionGroup) as caught:
        take_one(Snapshots(chain.store, folder, 1), chain, lambda: False)
    assert caught.group_contains(FileNotFoundError)
