"""Drawing the parts of a dataset: the request, the seed, and what the parts are.

Nothing is taken from a node on trust: parts are made here from the dataset and the seed, as
validators do before they confirm them. What is done with the parts is `merging`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from mlchain.client.client import EXECUTION_GAS, Client
from mlchain.client.http import Json, Notify, Watch
from mlchain.client.sources import load_table, split
from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError, Rejected, VerificationFailed
from mlchain.ledger.unixfs import cid_of, cid_text
from mlchain.ml_runtime import Dataset
from mlchain.ml_runtime.partition import partition
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.partitions import (
    MAX_PARTS,
    PART_GAS,
    DrawPartitions,
    NamePartitions,
    Part,
)


def dataset_of_table(
    file: Path, target: str, test_fraction: Decimal, is_class: bool
) -> tuple[bytes, int]:
    """Return the dataset that a job makes of a table by the same rules, and its test rows.

    Raises:
        ConfigError: something in it is not a number; says where.
    """
    table = load_table(file.name, file.parent, target, is_class)
    rows = split(table, test_fraction)
    made = Dataset.from_arrays(rows.features, rows.target, classes=len(table.classes))
    return made.encode(), rows.test_rows


def request_draw(client: Client, data: bytes, parts: int, test_rows: int, key: SecretKey) -> str:
    """Register an encoded dataset that the node holds, ask for a draw, and return the draw's id.

    Raises:
        ConfigError: the dataset does not make such parts.
        Rejected: it can never be included as it is.
    """
    dataset = Dataset.decode(data)
    if not 2 <= parts <= MAX_PARTS or parts + test_rows > dataset.rows:
        raise ConfigError(
            f"{dataset.rows} rows, {test_rows} of them to test, do not make {parts} parts",
            f"2 to {MAX_PARTS} parts, each with a row of its own",
        )
    content = cid_of(data)
    size = len(data) * (dataset.rows + (parts - 1) * test_rows) // dataset.rows
    register = RegisterData(content, len(data), dataset.rows, dataset.features)
    nonce = int(client.account(key.public.hex())["nonce"])
    client.send(register, key, nonce=nonce)
    request = DrawPartitions(content, parts, test_rows)
    return client.send(request, key, gas=EXECUTION_GAS + size // 64, nonce=nonce + 1)


def make_parts(data: bytes, draw: Json) -> tuple[Part, ...]:
    """Return the parts of a draw that has its seed, made from the encoded dataset."""
    seed, parts = bytes.fromhex(draw["seed"]), int(draw["parts"])
    made = partition(Dataset.decode(data), seed, parts, int(draw["test_rows"]))
    coded = ((part.encode(), part.rows) for part in made)
    return tuple(Part(cid_of(part), len(part), rows) for part, rows in coded)


def name_parts(client: Client, data: bytes, draw: Json, key: SecretKey) -> str:
    """Say what the parts of a draw are; return the transaction's id."""
    named = NamePartitions(bytes.fromhex(draw["id"]), make_parts(data, draw))
    return client.send(named, key, gas=EXECUTION_GAS + PART_GAS * len(named.parts))


def wait_for_draw(
    client: Client, identity: str, states: Sequence[str], timeout_s: float, notify: Notify | None
) -> Json:
    """Return a draw once it is in one of `states`.

    Raises:
        Timeout: not in time; it goes on without us.
    """
    watch, words = Watch(timeout_s), {
        "waiting": "validators to hold the dataset",
        "requested": "the beacon that draws the seed",
        "drawn": "validators to make the parts",
    }  # fmt: skip
    while (draw := client.draw(identity))["state"] not in states:
        waiting = words.get(draw["state"], "the parts")
        watch.require_time(f"waited {timeout_s:g} s for {waiting}", "mlchain status")
        if notify is not None:
            notify(f"waiting for {waiting}")
        time.sleep(client.poll_s)
    return draw


def draw_parts(
    client: Client,
    data: bytes,
    parts: int,
    test_rows: int,
    key: SecretKey,
    timeout_s: float = 120.0,
    notify: Notify | None = None,
) -> Json:
    """Have a dataset dealt to parts, and return the draw once a quorum has made them too.

    Raises:
        VerificationFailed: the chain names other parts than the seed gives.
        Timeout: not in time; the draw goes on without us.
    """
    client.put_data(data)
    identity = request_draw(client, data, parts, test_rows, key)
    client.wait(identity, timeout_s, notify)
    draw = wait_for_draw(client, identity, ("drawn", "named"), timeout_s, notify)
    if draw["state"] == "drawn":
        try:
            client.wait(name_parts(client, data, draw, key), timeout_s, notify)
        except Rejected:  # somebody else was quicker
            if not client.draw(identity)["named"]:
                raise
        draw = wait_for_draw(client, identity, ("named",), timeout_s, notify)
    check_draw(data, draw)
    return draw


def check_draw(data: bytes, draw: Json) -> None:
    """Return if the parts that the chain names are those of the dataset and the seed.

    Raises:
        VerificationFailed: they are others.
    """
    ours = [cid_text(part.content) for part in make_parts(data, draw)]
    if ours != [part["cid"] for part in draw["named"]] or draw["dataset"] != cid_text(cid_of(data)):
        raise VerificationFailed("the parts are not those that the seed gives", "ask another node")


def find_draw(client: Client, content_id: str, parts: int, test_rows: int) -> Json | None:
    """Return the latest draw of a dataset with these numbers whose parts are named, if any."""
    for draw in client.draws(content_id):
        wanted = (draw["state"], draw["parts"], draw["test_rows"])
        if wanted == ("named", parts, test_rows):
            return draw
    return None
