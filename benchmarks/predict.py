"""Predictions with five validator processes, beside what EthML's five servers took for one.

    PYTHONPATH=. python benchmarks/predict.py [--count 20] [--rows 1000] [--liar]

The model is theirs in kind: a support vector machine with a radial kernel on the 30 standardised
features of the breast-cancer data. CPU time is that of all processes of the network, idle work
included, from the request to the certified answer at the client.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from load import account
from msgspec.structs import replace
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from training import machine

from mlchain.cli.localnet import LocalNet
from mlchain.client.client import Client
from mlchain.client.prediction_receipt import verify_prediction_receipt
from mlchain.client.predictions import Terms, ask, read_answers, wait_for_answer
from mlchain.client.registry import Label, publish
from mlchain.codec import decode
from mlchain.ledger.genesis import Allocation, dump_genesis, load_genesis
from mlchain.ml_runtime.importers import from_sklearn
from mlchain.ml_runtime.serving import encode_rows
from mlchain.vm.prediction_receipt import PredictionReceipt
from mlchain.vm.receipt import MAX_RECEIPT_BYTES

VALIDATORS = 5
ETHML = {"best": 4.2, "median": 6.5, "cpu": 5.3}
"""Seconds of EthML for one prediction by five servers on a machine of this kind."""
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(roots: list[int]) -> float:
    """Return the CPU seconds of processes and their children so far."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = int(fields[11]) + int(fields[12])
    ours = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(used.get(pid, 0) for pid in ours) / TICKS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--liar", action="store_true", help="One validator answers wrongly.")
    arguments = parser.parse_args()
    x, y = load_breast_cancer(return_X_y=True)
    estimator = make_pipeline(StandardScaler(), SVC()).fit(x[:400], y[:400])
    model, key = from_sklearn(estimator), account(0)
    with TemporaryDirectory() as folder:
        cheats = {"validator-5": "wrong-answer"} if arguments.liar else {}
        net = LocalNet.create(Path(folder), VALIDATORS, 0, None, cheats)
        genesis = load_genesis(net.genesis)
        rich = (Allocation(key.public, 10**12),)
        genesis = replace(genesis, allocations=genesis.allocations + rich)
        net.genesis.write_text(dump_genesis(genesis))
        try:
            net.start(is_tied=True)
            net.wait_ready(120, lambda line: None)
            pids = [pid for node in net.nodes if (pid := net.pid(node)) is not None]
            with Client(net.url, timeout_s=30) as client:
                content, sent = publish(client, model, Label("cancer", "MIT"), key)
                client.wait(sent, 60)
                while len(client.registered(content)["held_by"]) < VALIDATORS:
                    time.sleep(0.1)
                row = client.registered("cancer")
                walls, cpus, agreed, disagreed = [], [], [], 0
                nonce = int(client.account(key.public.hex())["nonce"])
                for i in range(arguments.count):
                    before, started = cpu_s(pids), time.perf_counter()
                    text = encode_rows(x[400 + i : 401 + i])
                    identity = ask(client, row, text, key, Terms(tip=1000), nonce + i)
                    found = wait_for_answer(client, identity, 60)
                    walls.append(time.perf_counter() - started)
                    cpus.append(cpu_s(pids) - before)
                    answer = read_answers(client, found)
                    assert answer == model.answers(x[400 + i : 401 + i]).tolist(), answer
                    agreed.append(len(found["agreed"]))
                    disagreed += len(found["disagreed"])
                many = x[[i % len(x) for i in range(arguments.rows)]]
                before, started = cpu_s(pids), time.perf_counter()
                identity = ask(client, row, encode_rows(many), key)
                found = wait_for_answer(client, identity, 120)
                answers = read_answers(client, found)
                batch_s, batch_cpu = time.perf_counter() - started, cpu_s(pids) - before
                assert answers == model.answers(many).tolist()
                receipt = client.prediction_receipt(identity)
                started = time.perf_counter()
                checks = verify_prediction_receipt(
                    decode(PredictionReceipt, receipt, MAX_RECEIPT_BYTES), genesis
                )
                audit_s = time.perf_counter() - started
                assert all(check.passed for check in checks), checks
                faults = sum(len(v["faults"]) for v in client.validators())
        finally:
            net.remove()
    print(machine(), f"load {os.getloadavg()[0]:.1f}", sep="; ")
    print("| five validators, one row | here | EthML | aim |")
    print("|---|---|---|---|")
    print(f"| best, s | {min(walls):.2f} | {ETHML['best']} | |")
    print(f"| median, s | {statistics.median(walls):.2f} | {ETHML['median']} | 0.5 |")
    print(f"| slowest, s | {max(walls):.2f} | | |")
    print(f"| CPU, s | {statistics.median(cpus):.2f} | {ETHML['cpu']} | 0.5 |")
    print(f"| agreed, mean of {VALIDATORS} | {statistics.mean(agreed):.1f} | | |")
    print(f"| {arguments.rows} rows in one request, s | {batch_s:.2f} | | |")
    print(f"| rows a second | {arguments.rows / batch_s:.0f} | {1 / ETHML['median']:.2f} | |")
    print(f"| CPU for them, s | {batch_cpu:.2f} | | |")
    print(f"| audit of their receipt, s ({len(receipt)} bytes) | {audit_s:.2f} | | |")
    print(f"\nwrong answers seen {disagreed}, faults on chain {faults}")


if __name__ == "__main__":
    main()
