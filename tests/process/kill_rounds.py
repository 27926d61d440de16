"""Kills validators of a running network, again and again, and looks what became of it.

    scripts/kill-rounds [ROUNDS] [--seed N] [--dir DIR]

4 validators and 1 worker as processes, transfers without a pause. Each round kills one validator at
a random moment, sees that blocks go on, starts it again, and waits until its signature stands in
a commit. In every fifth round a training job is at work. At the end all four are killed at once and
must go on. Exit status 1: something that must never happen did; it is printed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ledgers import Ledgers
from process_network import PATIENCE_S, Network, NeverCameTrue, until
from traffic import Traffic

from mlchain.client.jobfile import load_job_file
from mlchain.client.keystore import load_key
from mlchain.client.submit import submit_gas
from mlchain.client.training import prepare
from mlchain.errors import MlchainError
from mlchain.ledger.unixfs import parse_cid
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.submit import SubmitJob

EXAMPLE = Path(__file__).parents[2] / "examples" / "iris.toml"
SENDERS = 4
JOB_EVERY = 5
"""Rounds from one training job to the next."""
BLOCKS_WITHOUT = 3
"""Blocks that must be made while a validator is dead."""

Say = Callable[[str], None]


@dataclass
class Report:
    """What a run showed. Times in seconds."""

    recovery: list[float] = field(default_factory=list)
    """From the start of the process to its signature in a block."""
    rate_with: list[float] = field(default_factory=list)
    rate_without: list[float] = field(default_factory=list)
    """Blocks per second with all validators, and while one was dead."""
    together: float = 0.0
    """Until the first block after all were killed at once."""
    transactions: int = 0
    jobs: int = 0
    votes: int = 0
    height: int = 0
    complaints: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        def both(values: list[float]) -> str:
            return f"{statistics.median(values):.1f} / {max(values):.1f}" if values else "-"

        return [
            f"rounds              {len(self.recovery)}",
            f"height              {self.height}",
            f"transactions        {self.transactions}, each acknowledged and in the chain once",
            f"jobs settled        {self.jobs}",
            f"votes compared      {self.votes}",
            f"recovery            {both(self.recovery)} s median / max, from start to vote",
            f"blocks per second   {both(self.rate_with)} with all, median / max",
            f"                    {both(self.rate_without)} with one dead",
            f"all killed at once  {self.together:.1f} s to the next block",
        ]


class Run:
    """One network under attack."""

    def __init__(self, network: Network, seed: int, say: Say) -> None:
        self.network, self.say = network, say
        self.draw = random.Random(seed)
        self.report = Report()
        self._nonce = 0
        self._jobs: list[str] = []
        self._key = load_key(network.folder / "keys" / "alice.json", None)

    def round(self, number: int) -> None:
        """Kill one validator, and wait until it votes again."""
        network, report = self.network, self.report
        if number % JOB_EVERY == 1:
            self._submit_job()
        victim = self.draw.choice(network.validators)
        report.rate_with.append(self._rate(self.draw.uniform(0.3, 2.0)))
        network.kill(victim)
        killed_at, before = time.monotonic(), network.top(*self._survivors(victim))
        until(
            lambda: network.top(*self._survivors(victim)) >= before + BLOCKS_WITHOUT,
            f"{BLOCKS_WITHOUT} blocks without {victim}",
        )
        time.sleep(self.draw.uniform(0, 2))
        grown = network.top(*self._survivors(victim)) - before
        report.rate_without.append(grown / (time.monotonic() - killed_at))
        seconds = self._revive(victim)
        report.recovery.append(seconds)
        self._compare()
        self.say(
            f"round {number}: {victim} killed at {before}, {grown} blocks without it, "
            f"votes again after {seconds:.1f} s"
        )

    def _survivors(self, victim: str) -> list[str]:
        return [name for name in self.network.validators if name != victim]

    def _rate(self, seconds: float) -> float:
        height, started = self.network.top(), time.monotonic()
        time.sleep(seconds)
        return (self.network.top() - height) / (time.monotonic() - started)

    def _revive(self, victim: str) -> float:
        """Start a node; return the seconds until a block holds its signature."""
        network = self.network
        started = time.monotonic()
        watcher = network.client(self._survivors(victim)[0])
        looked = network.height(self._survivors(victim)[0])
        network.start(victim)
        network.wait_ready(victim)
        network.wait_height(victim, looked)

        def has_voted() -> bool:
            nonlocal looked
            while looked < int(watcher.status()["height"]):
                looked += 1
                if victim in watcher.block(looked)["signed_by"]:
                    return True
            return False

        until(has_voted, f"a vote of {victim}")
        return time.monotonic() - started

    def _compare(self) -> None:
        """Compare the state of all nodes at one height, and look for faults."""
        network = self.network
        height = min(network.height(name) for name in network.plans)
        roots = {name: network.state_root(name, height) for name in network.plans}
        if len(set(roots.values())) != 1:
            self.report.complaints.append(f"states differ at {height}: {roots}")
        for row in network.client(network.validators[0]).validators():
            if row["faults"]:
                self.report.complaints.append(f"{row['name']}: {row['faults']}")

    def _submit_job(self) -> None:
        job_file = load_job_file(EXAMPLE)
        job = prepare(job_file)
        client = self.network.client("worker-1")
        content = parse_cid(client.put_data(job.dataset))
        rows = job.train_rows + job.test_rows
        register = RegisterData(content, len(job.dataset), rows, job.features)
        request = SubmitJob(
            job_file.name, job.plan, content, job.train_rows, job.test_rows, job.steps,
            job_file.chunk, job.segment, job_file.tier, job_file.fee, b"",
        )  # fmt: skip
        for payload in (register, request):
            if payload is register and self._nonce:
                continue  # the data is known
            gas = 400_000 + submit_gas(request)
            identity = client.send(payload, self._key, gas=gas, nonce=self._nonce)
            self._nonce += 1
        self._jobs.append(identity)

    def kill_all(self) -> None:
        """Kill every validator at once; the chain goes on where it was."""
        network = self.network
        before = network.top(*network.validators)
        for name in network.validators:
            network.processes[name].kill()
        for name in network.validators:
            network.kill(name)
        started = time.monotonic()
        network.start(*network.validators)
        network.wait_ready(*network.validators)
        until(lambda: network.top(*network.validators) > before + 1, "blocks after all were killed")
        self.report.together = time.monotonic() - started
        self.say(f"all killed at {before}, next block after {self.report.together:.1f} s")

    def settle(self, traffic: Traffic) -> None:
        """Let everything finish, stop all nodes, and compare what they have on disk."""
        network, report = self.network, self.report
        for identity in self._jobs:
            self._wait_job(identity)
        traffic.finish()
        report.complaints += [f"a sender failed: {error!r}" for error in traffic.failures]
        height = network.top()
        for name in network.plans:
            network.wait_height(name, height)
        network.stop()
        ledgers = Ledgers(network.genesis, [network.home(name) for name in network.plans])
        ledgers.check_acknowledged(traffic.acknowledged)
        report.transactions = len(traffic.acknowledged)
        if not report.transactions:
            report.complaints.append("no node took any transaction")
        report.jobs, report.votes, report.height = len(self._jobs), ledgers.votes, height
        report.complaints += ledgers.complaints

    def _wait_job(self, identity: str) -> None:
        client = self.network.client("worker-1")

        def has_ended() -> bool:
            try:
                return client.job(identity)["state"] not in ("submitted", "accepted", "running")
            except MlchainError:
                return False

        until(has_ended, f"job {identity[:8]} to end", 2 * PATIENCE_S)
        state = client.job(identity)["state"]
        if state != "settled":
            self.report.complaints.append(f"job {identity[:8]} ended as {state}")


def attack(folder: Path, rounds: int, seed: int, say: Say) -> Report:
    """Run `rounds` rounds and the last blow; return what was found."""
    network = Network(folder, 4, 1, SENDERS)
    run = Run(network, seed, say)
    try:
        network.start()
        say(f"network ready after {network.wait_ready():.1f} s, in {folder}")
        urls = [network.plans[name].url for name in network.plans]
        with Traffic(SENDERS, network.genesis.chain_id, lambda: urls) as traffic:
            for number in range(1, rounds + 1):
                run.round(number)
            run.kill_all()
            run.settle(traffic)
    except (NeverCameTrue, MlchainError) as error:
        run.report.complaints.append(str(error))
        for name in network.plans:
            say(f"--- {name}\n{network.net.log_tail(network.plans[name])}")
    finally:
        network.stop()
    return run.report


@contextmanager
def _folder(given: Path | None):
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="mlchain-kill-") as name:
        yield Path(name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill validators of a running network.")
    parser.add_argument("rounds", nargs="?", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="keep the network and its logs here")
    arguments = parser.parse_args()
    with _folder(arguments.dir) as folder:
        report = attack(
            folder, arguments.rounds, arguments.seed, lambda text: print(text, flush=True)
        )
    print("", *report.lines(), sep="\n")
    for complaint in report.complaints:
        print(f"VIOLATION {complaint}")
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
