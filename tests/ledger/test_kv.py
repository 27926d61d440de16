"""One suite for every key-value store, then what a disk adds: durability, damage, locks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import hypothesis.strategies as st
import plyvel
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlchain.errors import ConfigError, StoreCorrupted
from mlchain.ledger import kv as kv_module
from mlchain.ledger.kv import (
    RECENT_BYTES,
    LevelKeyValue,
    MemoryKeyValue,
    Namespace,
    Recent,
)


@pytest.fixture(params=["memory", "leveldb"])
def kv(request, tmp_path):
    made = MemoryKeyValue() if request.param == "memory" else LevelKeyValue(tmp_path / "db")
    yield made
    made.close()


def test_what_was_written_is_read_and_the_rest_is_none(kv):
    kv.write({b"a": b"1", b"empty": b""})
    assert (kv.get(b"a"), kv.get(b"empty"), kv.get(b"b")) == (b"1", b"", None)


def test_a_delete_removes_and_a_put_of_the_same_write_wins(kv):
    kv.write({b"a": b"1", b"b": b"2"})
    kv.write({b"b": b"3"}, [b"a", b"b", b"never there"])
    assert list(kv.items()) == [(b"b", b"3")]


def test_items_come_in_the_order_of_bytes_and_only_under_the_prefix(kv):
    keys = [b"", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff\x01"]
    kv.write(dict.fromkeys(reversed(keys), b"v"))
    assert [key for key, _ in kv.items()] == sorted(keys)
    for prefix in (b"a", b"a\xff", b"\xff", b"\xff\xff", b"c"):
        assert [k for k, _ in kv.items(prefix)] == [k for k in sorted(keys) if k.startswith(prefix)]


def test_a_snapshot_and_an_iteration_keep_the_moment_they_were_made(kv):
    kv.write({b"a": b"1", b"b": b"1"})
    snapshot, running = kv.snapshot(), kv.items()
    kv.write({b"a": b"2", b"c": b"2"}, [b"b"])
    old = [(b"a", b"1"), (b"b", b"1")]
    assert list(running) == old
    assert list(snapshot.items()) == old
    assert (snapshot.get(b"a"), snapshot.get(b"c")) == (b"1", None)
    assert list(kv.items()) == [(b"a", b"2"), (b"c", b"2")]


def test_a_namespace_sees_its_own_keys_without_the_prefix(kv):
    kv.write({b"s1": b"x", b"s2": b"y", b"t1": b"z", b"s": b"w"})
    space = Namespace(kv, b"s")
    assert space.get(b"1") == b"x"
    assert list(space.items()) == [(b"", b"w"), (b"1", b"x"), (b"2", b"y")]
    assert list(space.items(b"2")) == [(b"2", b"y")]


class Counting:
    """A reader that counts what it is asked."""

    def __init__(self, values):
        self.values, self.asked = dict(values), 0

    def get(self, key):
        self.asked += 1
        return self.values.get(key)


def test_what_was_read_once_is_not_read_again_at_this_moment_or_the_next():
    now = Counting({b"sa": b"1", b"sb": b"1"})
    values = Recent(now, b"s")
    assert [values.get(key) for key in (b"a", b"a", b"c", b"c")] == [b"1", b"1", None, None]
    assert now.asked == 2
    later = Counting({b"sa": b"1", b"sb": b"2", b"sc": b"2"})
    after = values.after(later, {b"b": b"2", b"c": b"2"})
    assert [after.get(key) for key in (b"a", b"b", b"c")] == [b"1", b"2", b"2"]
    assert later.asked == 0
    assert [values.get(key) for key in (b"b", b"c")] == [b"1", None], "the old moment stays"


def test_what_is_remembered_has_bounds(monkeypatch):
    monkeypatch.setattr(kv_module, "RECENT_KEYS", 2)
    large = bytes(RECENT_BYTES + 1)
    rows = {b"s" + key: key for key in (b"a", b"b", b"c")} | {b"slarge": large}
    reader = Counting(rows)
    values = Recent(reader, b"s")
    for _ in range(2):
        assert values.get(b"large") == large
    assert reader.asked == 2
    for key in (b"a", b"b", b"c", b"c"):
        assert values.get(key) == key
    assert reader.asked == 6, "the third is not remembered"
    after = values.after(Counting(rows), {b"a": large})
    assert after.get(b"a") == rows.get(b"sa"), "a large change is read from the disk"


@given(
    blocks=st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from([b"a", b"b", b"c", b"d"]), st.none() | st.binary(max_size=2)
            ),
            st.lists(st.sampled_from([b"a", b"b", b"c", b"d"])),
        ),
        max_size=8,
    )
)
def test_remembering_changes_no_answer(blocks):
    store, values = MemoryKeyValue(), Recent(MemoryKeyValue(), b"s")
    for changes, reads in blocks:
        store.write(
            {b"s" + k: v for k, v in changes.items() if v is not None},
            [b"s" + k for k, v in changes.items() if v is None],
        )
        values = values.after(store.snapshot(), changes)
        for key in reads:
            assert values.get(key) == store.get(b"s" + key)


def test_closing_twice_is_allowed(kv):
    kv.close()
    kv.close()


short = st.binary(max_size=3)


class AgainstDictionary(RuleBasedStateMachine):
    """Both kinds of store side by side with a dictionary; LevelDB reopens now and then."""

    def __init__(self):
        super().__init__()
        self.path = Path(mkdtemp())
        self.model: dict[bytes, bytes] = {}
        self.memory = MemoryKeyValue()
        self.level = LevelKeyValue(self.path)
        self.kept = None

    @rule(puts=st.dictionaries(short, short, max_size=5), deletes=st.lists(short, max_size=3))
    def write(self, puts, deletes):
        for key in deletes:
            self.model.pop(key, None)
        self.model.update(puts)
        self.memory.write(puts, deletes)
        self.level.write(puts, deletes)

    @rule()
    def reopen(self):
        self.kept = None
        self.level.close()
        self.level = LevelKeyValue(self.path)

    @rule()
    def keep_a_snapshot(self):
        self.kept = (dict(self.model), self.memory.snapshot(), self.level.snapshot())

    @precondition(lambda self: self.kept)
    @rule(prefix=short)
    def read_the_snapshot(self, prefix):
        model, *readers = self.kept
        for reader in readers:
            assert list(reader.items(prefix)) == under(model, prefix)

    @rule(prefix=short)
    def read(self, prefix):
        for store in (self.memory, self.level):
            assert list(store.items(prefix)) == under(self.model, prefix)
            assert store.get(prefix) == self.model.get(prefix)

    @invariant()
    def equal(self):
        assert dict(self.memory.items()) == dict(self.level.items()) == self.model

    def teardown(self):
        self.level.close()
        shutil.rmtree(self.path)


def under(model, prefix):
    return [(key, model[key]) for key in sorted(model) if key.startswith(prefix)]


TestAgainstDictionary = AgainstDictionary.TestCase
TestAgainstDictionary.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_what_was_written_is_there_after_the_process_was_killed(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from mlchain.ledger.kv import LevelKeyValue\n"
        "kv = LevelKeyValue(Path(sys.argv[1]))\n"
        "for n in range(50): kv.write({b'n': b'%d' % n, b'k%d' % n: b'v'})\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], check=False)
    assert done.returncode == -9
    kv = LevelKeyValue(tmp_path / "db")
    assert kv.get(b"n") == b"49" and len(list(kv.items(b"k"))) == 50
    kv.close()


def test_a_folder_in_use_is_a_configuration_error_that_says_so(tmp_path):
    first = LevelKeyValue(tmp_path / "db")
    with pytest.raises(ConfigError, match="in use") as caught:
        LevelKeyValue(tmp_path / "db")
    assert "another process" in caught.value.hint
    first.close()


@pytest.mark.parametrize("why", ["No space left on device", "Input/output error"])
def test_a_disk_that_cannot_hold_the_lock_is_not_called_another_process(tmp_path, monkeypatch, why):
    def fail(path, create, **options):
        raise plyvel.IOError(f"IO error: {path}/LOCK: {why}".encode())

    monkeypatch.setattr(kv_module, "_open", fail)
    with pytest.raises(StoreCorrupted, match=why) as caught:
        LevelKeyValue(tmp_path / "db")
    assert "free space" in caught.value.hint


def test_a_path_that_cannot_be_a_folder_is_a_configuration_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="file"):
        LevelKeyValue(tmp_path / "file" / "db")


def test_a_database_without_its_current_file_does_not_start_empty(tmp_path):
    kv = LevelKeyValue(tmp_path / "db")
    kv.write({b"balance": b"7"})
    kv.close()
    LevelKeyValue(tmp_path / "db").close()  # the log becomes a table
    (tmp_path / "db" / "CURRENT").unlink()
    with pytest.raises(StoreCorrupted):
        LevelKeyValue(tmp_path / "db")
    # Control: LevelDB itself would make a new, empty database there and lose the data.
    control = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    assert control.get(b"balance") is None
    control.close()


def test_a_flipped_bit_in_a_table_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "db"
    kv = LevelKeyValue(path)
    kv.write({b"key%03d" % n: b"honest value %03d" % n for n in range(200)})
    kv.close()
    LevelKeyValue(path).close()  # the log becomes a table
    (table,) = path.glob("*.ldb")
    data = bytearray(table.read_bytes())
    place = data.index(b"honest value 000")
    data[place] ^= 1
    table.write_bytes(data)
    kv = LevelKeyValue(path)
    with pytest.raises(StoreCorrupted) as caught:
        kv.get(b"key000")
    assert str(path) in caught.value.message and "--repair" in caught.value.hint
    with pytest.raises(StoreCorrupted):
        list(kv.items())
    kv.close()
    # Control: without verified checksums the wrong value is simply returned.
    control = plyvel.DB(str(path))
    assert control.get(b"key000") == b"ionest value 000"
    control.close()


def three_writes(path):
    """A database of three writes, the log it stands in, and where each of them begins."""
    kv = LevelKeyValue(path)
    for n in range(3):
        kv.write({b"n": b"%d" % n, b"block %d" % n: bytes(100)})
    kv.close()
    (log,) = path.glob("*.log")
    data = log.read_bytes()
    return log, data, [data.index(b"block %d" % n) for n in range(3)]


def test_a_flipped_bit_in_the_middle_of_the_log_is_not_skipped_over(tmp_path):
    path = tmp_path / "db"
    log, data, places = three_writes(path)
    spoilt = bytearray(data)
    spoilt[places[1]] ^= 1
    log.write_bytes(spoilt)
    shutil.copytree(path, tmp_path / "control")
    for _ in range(2):
        with pytest.raises(StoreCorrupted):
            LevelKeyValue(path)
    # Control: LevelDB's default is to drop what it cannot read and to go on.
    control = plyvel.DB(str(tmp_path / "control"))
    assert control.get(b"n") == b"0" and control.get(b"block 2") is None
    control.close()


@pytest.mark.parametrize("large", [100, 100_000])
def test_a_last_write_of_which_a_crash_left_any_part_is_left_out(tmp_path, large):
    path = tmp_path / "db"
    kv = LevelKeyValue(path)
    kv.write({b"n": b"whole"})
    (log,) = path.glob("*.log")
    start = log.stat().st_size
    kv.write({b"n": b"last", b"block": b"x" * large})
    kv.close()
    data = log.read_bytes()
    size = len(data) - start
    for first, last in ((0, size), (0, 3), (7, 20), (size // 2, size), (size - 1, size)):
        gap = data[: start + first] + bytes(last - first) + data[start + last :]
        log.write_bytes(gap)
        other = tmp_path / f"{first}-{last}"
        shutil.copytree(path, other)
        for _ in range(2):  # once more, over what the first opening made of it
            kv = LevelKeyValue(other)
            assert kv.get(b"n") == b"whole", (first, last)
            kv.close()


def test_a_creation_that_was_interrupted_begins_anew(tmp_path):
    path = tmp_path / "db"
    LevelKeyValue(path).close()
    (manifest,) = path.glob("MANIFEST-*")
    manifest.write_bytes(b"")  # LevelDB does not sync the first one
    kv = LevelKeyValue(path)
    kv.write({b"a": b"1"})
    kv.close()
    # Control: where something was written, a lost manifest is damage.
    (manifest,) = path.glob("MANIFEST-*")
    manifest.write_bytes(b"")
    with pytest.raises(StoreCorrupted):
        LevelKeyValue(path)


def test_a_write_is_one_transaction_and_synced(tmp_path):
    # That killing a process loses nothing would hold without a sync, too; only a power cut tells.
    kv = LevelKeyValue(tmp_path / "db")
    asked = []

    class Spy:
        def __getattr__(self, name):
            if name != "write_batch":
                return getattr(source, name)
            return lambda **options: (asked.append(options), source.write_batch(**options))[1]

    source, kv._source = kv._source, Spy()
    kv.write({b"a": b"1"}, [b"b"])
    assert asked == [{"transaction": True, "sync": True}] and kv.get(b"a") == b"1"
    kv.close()


def test_a_database_keeps_no_more_in_memory_than_its_bounds_however_much_it_holds(tmp_path):
    database = LevelKeyValue(tmp_path / "db")
    for number in range(60):  # 12 MB: three times what may wait to be written
        rows = {b"%d/%d" % (number, i): os.urandom(10_000) + bytes(10_000) for i in range(10)}
        database.write(rows)
    assert sum(1 for _ in database.items()) == 600
    used = int(database._source.get_property(b"leveldb.approximate-memory-usage"))
    database.close()
    assert used < 2 * kv_module.WRITE_BUFFER_BYTES + kv_module.CACHE_BYTES + (1 << 20)
