"""Runs a network of real processes in bad weather, and looks what became of it.

    scripts/soak [SECONDS] [--validators N] [--workers N] [--seed N] [--faults kill,cut,…]
                 [--picture FILE.svg] [--json] [--dir DIR]

Clients send transfers all the time and remember what nodes told them. Faults come one after
another, drawn from the seed; in the last part there are none. Then all nodes are stopped, and what
they have on disk is compared with what clients were told. Exit status 1: something that must never
happen did; it is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ledgers import Ledgers, opened
from process_network import NeverCameTrue, sender_key
from soak_network import SoakNetwork, in_own_mounts, soaking
from soak_report import Event, Report, Sampler
from traffic import Traffic
from weather import FAULTS, FLOODER, Fault, all_vote

from mlchain.errors import MlchainError
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.merkle import SparseTree
from mlchain.ledger.state import State
from mlchain.vm.families.accounts import get_account
from mlchain.vm.initial import compute_supply, write_genesis

SENDERS = 4
CALM_S = 30.0
"""Without faults at the beginning: what is normal here."""
LAST_CALM_S = 45.0
NORMAL_WITHIN_S = 10.0
"""After the last fault clients wait no longer than at the beginning."""
RECEIVER = 250
STOPS_SHARE = 0.15
"""Of the faults drawn, those after which nothing can be decided."""

Say = Callable[[str], None]


@dataclass
class Plan:
    """What a run is."""

    seconds: float = 120.0
    validators: int = 4
    workers: int = 0
    seed: int = 1
    faults: tuple[str, ...] = tuple(FAULTS)
    mutant: str = ""
    calm_s: float = CALM_S
    last_calm_s: float = LAST_CALM_S
    longest_s: float = 12.0
    """Of one fault."""


@dataclass
class Soak:
    """One run over one network."""

    plan: Plan
    network: SoakNetwork
    traffic: Traffic
    report: Report
    say: Say
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.plan.seed)

    def run(self) -> None:
        """Calm, weather, calm."""
        end = time.monotonic() + self.plan.seconds
        time.sleep(self.plan.calm_s)
        self.report.calm_until = time.monotonic()
        names = [name for name in self.plan.faults if name not in self.network.skipped]
        for name, reason in self.network.skipped.items():
            if name in self.plan.faults:
                self.say(f"skipped: {name}: {reason}")
        first = list(names)  # each at least once, in a drawn order
        self.draw.shuffle(first)
        while names and (time.monotonic() < end - self.plan.last_calm_s or first):
            self._one(FAULTS[first.pop() if first else self._drawn(names)])
        self.report.weather_until = time.monotonic()
        time.sleep(self.plan.last_calm_s)
        self.report.ended = time.monotonic()

    def _drawn(self, names: list[str]) -> str:
        hard = [name for name in names if FAULTS[name].stops_all]
        soft = [name for name in names if name not in hard]
        if hard and (not soft or self.draw.random() < STOPS_SHARE):
            return self.draw.choice(hard)
        return self.draw.choice(soft)

    def _one(self, kind: type[Fault]) -> None:
        fault = kind(self.network, self.draw)
        started = time.monotonic()
        fault.begin()
        time.sleep(self.draw.uniform(1.0, self.plan.longest_s))
        fault.end()
        ended = time.monotonic()
        all_vote(self.network)
        healed = time.monotonic()
        self.report.events.append(Event(fault.name, tuple(fault.who), started, ended, healed))
        self.say(
            f"{started - self.report.started:6.1f} s  {fault.name:<10} {', '.join(fault.who):<24}"
            f" {ended - started:5.1f} s, all vote after {healed - ended:.1f} s"
        )
        time.sleep(self.draw.uniform(0, 2))


def soak(folder: Path, plan: Plan, say: Say) -> Report:
    """Run `plan`; return what was seen, with all complaints."""
    report = Report(plan.seed)
    with soaking(folder, plan.validators, plan.workers, SENDERS, plan.mutant) as network:
        report.started = time.monotonic()
        say(f"{len(network.honest)} nodes in {folder}, seed {plan.seed}")
        urls = [network.plans[name].url for name in network.validators]
        with (
            Sampler(network, report),
            Traffic(FLOODER, network.genesis.chain_id, lambda: urls) as traffic,
        ):
            run = Soak(plan, network, traffic, report, say)
            try:
                run.run()
                traffic.finish()
                top = network.top()
                for name in network.honest:
                    network.wait_height(name, top)
            except (NeverCameTrue, AssertionError, MlchainError) as error:
                report.complaints.append(str(error))
                report.ended = report.ended or time.monotonic()
                for name in network.honest:
                    say(f"--- {name}\n{network.net.log_tail(network.plans[name])}")
        report.on_end(traffic)  # with the waits of what was on its way when the last calm ended
        report.complaints += [f"a sender failed: {error!r}" for error in traffic.failures]
        for name in network.honest:
            if "Traceback" in network.log(name):
                report.complaints.append(f"{name} met a bug: see {network.home(name)}/node.log")
    judge(network, traffic, report)
    return report


def judge(network: SoakNetwork, traffic: Traffic, report: Report) -> None:
    """Compare what the stopped nodes have on disk with one another, and with what clients heard."""
    homes = [network.home(name) for name in network.honest]
    ledgers = Ledgers(network.genesis, homes)
    told = {i: place for sender in traffic.senders for i, place in sender.included.items()}
    ledgers.check_acknowledged(traffic.acknowledged)
    places = ledgers.places
    for identity, place in told.items():
        if (true := places.get(identity)) != place:
            name = identity.hex()[:8]
            report.complaints.append(f"{name} was said to be final at {place}, is at {true}")
    initial = State(MemoryKeyValue(), SparseTree())
    write_genesis(initial, network.genesis)
    for home in homes:
        with opened(home, network.genesis) as store:
            state = store.state()
            if compute_supply(state) != compute_supply(initial):
                report.complaints.append(f"{home.name}: the supply is not what it was")
            received = get_account(state, sender_key(RECEIVER).public).balance
            if store.height == max(ledgers.heights.values()) and received != len(
                [i for i in traffic.handed_in if places.get(i)]
            ):
                report.complaints.append(f"{home.name}: a transfer counts twice or not at all")
    if not traffic.acknowledged:
        report.complaints.append("no node took any transaction")
    report.transactions, report.final = len(traffic.acknowledged), len(told)
    report.votes, report.height = ledgers.votes, max(ledgers.heights.values())
    report.complaints += ledgers.complaints


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run a network of processes in bad weather, and check what became of it.",
        epilog="example: scripts/soak 1800 --validators 7 --workers 2 --picture soak.svg",
    )
    parser.add_argument("seconds", nargs="?", type=float, default=1800.0)
    parser.add_argument("--validators", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", default=",".join(FAULTS), help="of: " + ", ".join(FAULTS))
    parser.add_argument("--mutant", default="", help="run nodes with this bug in them")
    parser.add_argument("--picture", type=Path, help="write the timeline here, as SVG")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--dir", type=Path, help="keep the network and its logs here")
    chosen = parser.parse_args()
    faults = tuple(name for name in chosen.faults.split(",") if name)
    if unknown := [name for name in faults if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    if not os.environ.get("MLCHAIN_SOAK_MOUNTS") and (again := in_own_mounts(sys.argv)):
        os.execvpe(again[0], again, {**os.environ, "MLCHAIN_SOAK_MOUNTS": "1"})
    plan = Plan(
        chosen.seconds, chosen.validators, chosen.workers, chosen.seed, faults, chosen.mutant
    )
    target = sys.stderr if chosen.json else sys.stdout
    place = (
        nullcontext(str(chosen.dir))
        if chosen.dir
        else tempfile.TemporaryDirectory(prefix="mlchain-soak-")
    )
    with place as name:
        report = soak(Path(name), plan, lambda text: print(text, file=target, flush=True))
    if not report.recovery_s() <= NORMAL_WITHIN_S:  # nor if it is not a number
        report.complaints.append(
            f"not back to normal within {NORMAL_WITHIN_S:g} s of the last fault"
        )
    if chosen.picture:
        chosen.picture.write_text(report.picture())
    if chosen.json:
        print(json.dumps(report.document(), indent=2))
    else:
        print("", *report.lines(), sep="\n")
    for complaint in report.complaints:
        print(f"VIOLATION {complaint}", file=target)
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
