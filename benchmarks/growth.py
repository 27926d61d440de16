"""What a node costs as the ledger grows: accounts, validators, blocks, open jobs.

    PYTHONPATH=. python benchmarks/growth.py [--most-accounts 1000000] [--most-blocks 100000]
        [--results growth.json] [--plot growth.svg]

Each quantity grows alone. CPU time of one thread, so that other work on the machine changes little;
memory is what the process holds resident afterwards, each row in a process of its own. A block
carries 200 transfers between random accounts. Beside each column stands the power of the quantity
that it grows with, fitted over the rows: 0 does not grow, 1 is proportional.

With `--results` rows that the file has are taken from it, and each new one is added at once: a long
run that was stopped goes on, and `--plot` draws what was measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from growth_plot import Row, draw, number, power
from training import machine

from mlchain import codec, crypto
from mlchain.cli.localgenesis import LOCAL_PARAMS
from mlchain.consensus.driver import Driver
from mlchain.consensus.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    Decide,
    SignMessage,
    Timeouts,
)
from mlchain.consensus.safety import Signer
from mlchain.ledger.commit import (
    NIL,
    Commit,
    Vote,
    VoteKind,
    make_commit,
    sign_bytes,
    verify_commit,
)
from mlchain.ledger.genesis import Allocation, Genesis, Member
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ledger.state import State
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.ledger.validators import Validator, ValidatorSet
from mlchain.node.chain import Chain
from mlchain.vm.agenda import enter
from mlchain.vm.families.accounts import ACCOUNTS, Account, Transfer
from mlchain.vm.families.jobs import (
    JOBS,
    SEGMENTS,
    Job,
    JobState,
    Phase,
    Segment,
    SegmentState,
)
from mlchain.vm.initial import write_genesis

TRANSFERS = 200
BLOCKS = 5
SENDERS = 2_000
FAR_MS = 2**50


def key_of(name: str, number: int) -> crypto.SecretKey:
    return crypto.SecretKey(
        crypto.digest("mlchain/growth", name.encode(), number.to_bytes(8, "big"))
    )


class Ledger:
    """One node's chain, and the keys of everybody who votes."""

    def __init__(self, folder: Path, accounts: int = 1_000, validators: int = 4, jobs: int = 0):
        self.keys = [key_of("validator", i) for i in range(validators)]
        self.senders = [key_of("sender", i) for i in range(min(accounts, SENDERS))]
        members = [
            Member(
                f"v{i}", "validator", k.public, k.public, "127.0.0.1", 1, 10**9, *[bytes(32)] * 3
            )
            for i, k in enumerate(self.keys)
        ]
        worker = key_of("worker", 0).public
        members.append(
            Member("w", "worker", worker, worker, "127.0.0.1", 1, 10**9, *[bytes(32)] * 3)
        )
        allocations = tuple(Allocation(k.public, 10**12) for k in self.senders)
        self.genesis = Genesis("growth", 1, bytes(32), LOCAL_PARAMS, tuple(members), allocations)
        self.nonces = dict.fromkeys(range(len(self.senders)), 0)
        self.random = random.Random(1)
        others = accounts - len(self.senders)
        rows = sorted(crypto.digest("other", i.to_bytes(8, "big")) for i in range(others))
        self.others = rows or [k.public for k in self.senders]

        def initial(state: State) -> None:
            for public in rows:  # in key order: the state keeps its changes sorted
                ACCOUNTS.put(state, Account(1, 0), public)
            write_genesis(state, self.genesis)
            for index in range(jobs):
                open_job(state, crypto.digest("job", index.to_bytes(8, "big")), worker)

        self.path = folder / "data"
        self.kv = LevelKeyValue(self.path)
        self.store = Store.create_or_open(self.kv, self.genesis, initial)
        self.chain = Chain(self.store, self.keys[0].public, lambda ref, commit: True)
        self.commit: Commit | None = None

    def transfers(self, count: int) -> list[bytes]:
        """Return signed transfers from random accounts to random accounts."""
        made = []
        for _ in range(count):
            number = self.random.randrange(len(self.senders))
            key, to = self.senders[number], self.random.choice(self.others)
            body = TransactionBody(
                "growth", key.public, self.nonces[number], 200_000, 1, Transfer.KIND,
                codec.encode(Transfer(to, 1)),
            )  # fmt: skip
            self.nonces[number] += 1
            made.append(codec.encode(sign_transaction(body, key)))
        return made

    def certify(self, height: int, block_id: bytes) -> Commit:
        """Return the certificate of all validators."""
        votes = []
        for key in self.keys:
            message = sign_bytes("growth", VoteKind.PRECOMMIT, height, 0, block_id, -1, b"")
            votes.append(
                Vote(VoteKind.PRECOMMIT, height, 0, block_id, key.public, b"", key.sign(message))
            )
        return make_commit(votes)

    def add_block(self, transactions: list[bytes]) -> float:
        """Admit transactions, make a block of them final; return CPU seconds from build to disk."""
        for data in transactions:
            self.chain.add_transaction(data)
        start = time.process_time()
        block, identity = self.chain.build(self.store.head.time_ms + 1, self.commit)
        data = codec.encode(block)
        spent = time.process_time() - start
        self.commit = self.certify(self.store.height + 1, identity)
        start = time.process_time()
        self.chain.commit(identity, data, self.commit)
        return spent + time.process_time() - start


def open_job(state: State, identity: bytes, worker: bytes) -> None:
    """Write a job at work, whose worker has plenty of time."""
    job = Job(
        worker, "job", bytes(32), bytes(36), 10, 0, 1000, 1, 1000, "audited", 1, 1, 1,
        JobState.RUNNING, 1, 0, b"", bytes(32), (worker,), (), 0, 1, 0,
    )  # fmt: skip
    JOBS.put(state, job, identity)
    kinds = Segment.__annotations__.values()  # text: empty for each, whatever is added later
    rest = [() if "tuple" in kind else None if "None" in kind else 0 for kind in kinds]
    segment = Segment(SegmentState.ASSIGNED, worker, 0, FAR_MS, *rest[4:])
    SEGMENTS.put(state, segment, identity, 0)
    enter(state, identity, Phase.WORKER, FAR_MS)


def resident_mb() -> float:
    """Return what this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_block(ledger: Ledger) -> float:
    """Return the median CPU milliseconds of a block of transfers, already admitted."""
    times = [ledger.add_block(ledger.transfers(TRANSFERS)) for _ in range(BLOCKS)]
    return sorted(times)[BLOCKS // 2] * 1e3


# ---- what grows -----------------------------------------------------------------------------


def grow_accounts(count: int, folder: Path) -> dict[str, float]:
    ledger = Ledger(folder, accounts=count)
    block_ms = measure_block(ledger)
    key = ACCOUNTS.key(ledger.others[0])
    _, proof = ledger.store.prove(key)
    size = len(codec.encode(proof))
    opened = subprocess_open(ledger)
    return {"block ms": block_ms, "proof bytes": size, **opened}


def grow_blocks(count: int, folder: Path) -> dict[str, float]:
    ledger = Ledger(folder)
    start = time.process_time()
    for _ in range(count):
        ledger.add_block([])
    each = (time.process_time() - start) / count * 1e3
    block_ms = measure_block(ledger)
    disk = sum(f.stat().st_size for f in ledger.path.iterdir()) / count
    return {"empty block ms": each, "block ms": block_ms, "disk B a block": disk,
            **subprocess_open(ledger)}  # fmt: skip


def grow_jobs(count: int, folder: Path) -> dict[str, float]:
    ledger = Ledger(folder, jobs=count)
    times = sorted(ledger.add_block([]) for _ in range(3 * BLOCKS))
    return {"empty block ms": times[len(times) // 2] * 1e3, "block ms": measure_block(ledger)}


def grow_validators(count: int, folder: Path) -> dict[str, float]:
    ledger = Ledger(folder, validators=count)
    block_ms = measure_block(ledger)
    commit = ledger.commit
    assert commit is not None
    start = time.process_time()
    verify_commit(commit, "growth", ledger.chain.validators, commit.height, commit.block_id)
    verify_ms = (time.process_time() - start) * 1e3
    size = len(codec.encode(commit))
    return {"block ms": block_ms, "certificate bytes": size, "its check ms": verify_ms,
            "agreeing ms, each": agree(ledger.keys)}  # fmt: skip


def agree(keys: list[crypto.SecretKey]) -> float:
    """Return CPU milliseconds that one height of agreement costs each validator, without net."""
    validators = ValidatorSet(tuple(Validator(k.public, 1) for k in keys))
    timeouts = Timeouts(10**6, 10**6, 1)
    block = b"block"
    block_id = crypto.digest("block", block)
    drivers: dict[bytes, Driver] = {}
    for key in keys:
        signer = Signer(key, "growth", None, lambda data: None)
        drivers[key.public] = Driver(
            "growth", key.public, timeouts, signer.sign, lambda *a: b"", lambda *a: True,
            identify=lambda data: crypto.digest("block", data),
        )  # fmt: skip
    mail: list[tuple[bytes, bytes, bytes]] = []
    decided: set[bytes] = set()

    def pump(public: bytes) -> None:
        driver = drivers[public]
        while effects := driver.drain():
            for effect in effects:
                if isinstance(effect, SignMessage):
                    driver.sign(effect.request, 0)
                elif isinstance(effect, Broadcast):
                    mail.extend((public, to, effect.message) for to in drivers if to != public)
                elif isinstance(effect, BuildBlock):
                    driver.built(effect.height, effect.round, block, block_id, 0)
                elif isinstance(effect, CheckBlock):
                    driver.checked(effect.block_id, True, 0)
                elif isinstance(effect, Decide):
                    assert effect.block_id == block_id != NIL
                    decided.add(public)

    start = time.process_time()
    for public, driver in drivers.items():
        driver.start(1, validators, 0)
        driver.demand(0)
        pump(public)
    while mail:
        sender, to, message = mail.pop(0)
        drivers[to].receive(sender, message, 0)
        pump(to)
    assert len(decided) == len(keys), "everybody decides"
    return (time.process_time() - start) / len(keys) * 1e3


def subprocess_open(ledger: Ledger) -> dict[str, float]:
    """Open the store in a fresh process, as a node that starts does."""
    ledger.kv.close()
    genesis = ledger.path.parent / "genesis"
    genesis.write_bytes(codec.encode(ledger.genesis))
    program = [sys.executable, __file__, "--open", str(ledger.path), str(genesis)]
    return dict(json.loads(subprocess.run(program, capture_output=True, check=True).stdout))


def open_here(path: str, genesis_path: str) -> None:
    """Open a store and print what that took."""
    genesis = codec.decode(Genesis, Path(genesis_path).read_bytes())
    before, start = resident_mb(), time.process_time()
    store = Store.create_or_open(LevelKeyValue(Path(path)), genesis, lambda state: None)
    found = {"start s": time.process_time() - start, "memory MB": resident_mb() - before}
    assert store.height > 0
    print(json.dumps(found))


QUANTITIES: dict[str, tuple[Callable[[int, Path], dict[str, float]], tuple[int, ...]]] = {
    "accounts": (grow_accounts, (1_000, 10_000, 100_000, 1_000_000)),
    "validators": (grow_validators, (4, 7, 13, 22, 31)),
    "blocks": (grow_blocks, (100, 1_000, 10_000, 100_000)),
    "open jobs": (grow_jobs, (1, 10, 64, 300, 1_000)),
}


# ---- table and picture ----------------------------------------------------------------------


def print_line(first: str, values: Iterable[str]) -> None:
    print(f"{first:>12}" + "".join(f"{value:>20}" for value in values), flush=True)


class Results:
    """Rows by quantity and size, in a file if one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, dict[str, dict[str, float]]] = {}
        if path is not None and path.exists():
            self._rows = json.loads(path.read_text())

    def row(self, name: str, size: int, measure: Callable[[int, Path], dict[str, float]]) -> Row:
        """Return what was measured, or measure it now."""
        rows = self._rows.setdefault(name, {})
        if str(size) not in rows:
            with TemporaryDirectory(prefix="mlchain-bench-") as folder:
                rows[str(size)] = measure(size, Path(folder))
            if self._path is not None:
                self._path.write_text(json.dumps(self._rows, indent=1) + "\n")
        return rows[str(size)]


def main() -> None:
    """Grow each quantity and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=tuple(QUANTITIES), help="one quantity alone")
    parser.add_argument("--most-accounts", type=int, default=100_000)
    parser.add_argument("--most-blocks", type=int, default=10_000)
    parser.add_argument("--results", type=Path, help="a JSON file of rows, read and added to")
    parser.add_argument("--plot", type=Path, help="write an SVG picture")
    parser.add_argument("--open", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        open_here(*options.open)
        return
    print(f"{machine()}, load average {os.getloadavg()[0]:.1f}")
    most = {"accounts": options.most_accounts, "blocks": options.most_blocks}
    results, found = Results(options.results), {}
    for name, (measure, sizes) in QUANTITIES.items():
        if options.only not in (None, name):
            continue
        xs = [size for size in sizes if size <= most.get(name, size)]
        rows: list[dict[str, float]] = []
        print()
        for size in xs:
            rows.append(results.row(name, size, measure))
            if len(rows) == 1:
                print_line(name, rows[0])
            print_line(f"{size:,}", map(number, rows[-1].values()))
        powers = [power(xs, [row[column] for row in rows]) for column in rows[0]]
        print_line("power", [f"{p:.2f}" for p in powers])
        found[name] = (xs, rows)
    if options.plot:
        draw(options.plot, found, f"{machine()}; dashed: in proportion; each over its first value")


if __name__ == "__main__":
    main()
