"""Asking a registered model: rows as text, a signed request, and the wait for its answer."""

from __future__ import annotations

import csv
import io
import json
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlchain.client.client import EXECUTION_GAS, Client
from mlchain.client.http import Json, Notify
from mlchain.client.scaling import Floats
from mlchain.client.userfile import read_file
from mlchain.crypto import SecretKey
from mlchain.errors import CodecError, ConfigError, NotFound, Rejected, Timeout
from mlchain.ledger.unixfs import parse_cid
from mlchain.ml_runtime.serving import MAX_ROWS_BYTES, count_rows, encode_rows
from mlchain.vm.families.predictions import (
    MAX_INLINE_BYTES,
    READ_GAS,
    REPLICATED,
    RequestPrediction,
    least_fee,
    request_gas,
)

WAIT_S = 20.0
"""The longest that one request waits on the node's side; the timeout of a client is above it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request is sent under; `tip` in micro-credits."""

    tier: str = REPLICATED
    tip: int = 0


def read_rows(source: str) -> bytes:
    """Return rows as JSON text: from numbers "1,2,3", a JSON file, or a CSV file of numbers.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
        CodecError: it is too large.
    """
    path = Path(source)
    try:
        if path.suffix == ".json":
            return read_file(path, MAX_ROWS_BYTES, "a .json or .csv file").strip()
        if path.suffix == ".csv":
            text = read_file(path, MAX_ROWS_BYTES, "a .json or .csv file").decode("utf-8-sig")
            return encode_rows(_read_csv(text))
        return json.dumps([float(cell) for cell in source.split(",")]).encode()
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{source[:80]}: not rows of numbers: {error}") from error


def _read_csv(text: str) -> Floats:
    """Return the numbers of a CSV file, 8 bytes each while it is read.

    Raises:
        ValueError, csv.Error: no rows of numbers, or rows of different lengths.
    """
    cells, width = array("d"), 0
    for line in csv.reader(io.StringIO(text, newline="")):
        width = width or len(line)
        if line and len(line) != width:
            raise ValueError(f"{len(line)} cells after rows of {width}")
        cells.extend(map(float, line))
    return np.frombuffer(cells).reshape(-1, max(1, width))


def ask(
    client: Client,
    model: Json,
    rows: bytes,
    key: SecretKey,
    terms: Terms | None = None,
    nonce: int | None = None,
) -> str:
    """Send a request about rows, a JSON text; return its id. Long texts go to the node first.

    `model` is the registry's row (`client.registered`).

    Raises:
        ConfigError: the rows are not what the model reads.
        Rejected: it can never be included as it is.
    """
    try:
        count = count_rows(rows, int(model["features"]))
    except CodecError as error:
        raise ConfigError(error.message) from error
    is_long = len(rows) > MAX_INLINE_BYTES
    data = parse_cid(client.put_data(rows)) if is_long else b""
    return send(client, model, b"" if is_long else rows, data, count, key, terms, nonce=nonce)


def ask_about(
    client: Client, model: Json, cid: str, key: SecretKey, terms: Terms | None = None
) -> str:
    """Send a request about rows by their content id, which the node holds or gets; return its id.

    Raises: as `ask`.
    """
    try:
        rows = count_rows(client.data(cid), int(model["features"]))
    except CodecError as error:
        raise ConfigError(f"{cid}: {error.message}") from error
    return send(client, model, b"", parse_cid(cid), rows, key, terms)


def evaluate(
    client: Client, model: Json, dataset: str, rows: int, key: SecretKey, terms: Terms | None = None
) -> str:
    """Ask what a model is worth on the last rows of a registered dataset; return the id."""
    return send(client, model, b"", parse_cid(dataset), rows, key, terms, is_evaluation=True)


def send(
    client: Client,
    model: Json,
    inline: bytes,
    data: bytes,
    rows: int,
    key: SecretKey,
    terms: Terms | None = None,
    *,
    is_evaluation: bool = False,
    nonce: int | None = None,
) -> str:
    """Sign and send a request at the least fee that the chain asks for."""
    terms = terms or Terms()
    gas = request_gas(int(model["gas"]), int(model["features"]), rows)
    fee = least_fee(gas, terms.tier, int(client.status()["validators"]))
    request = RequestPrediction(
        parse_cid(model["content"]), inline, data, rows, is_evaluation, terms.tier, fee, terms.tip
    )
    return client.send(request, key, gas=EXECUTION_GAS + READ_GAS * len(inline), nonce=nonce)


def wait_for_answer(
    client: Client, identity: str, timeout_s: float = 30.0, notify: Notify | None = None
) -> Json:
    """Return a prediction once it is answered.

    Raises:
        Rejected: the chain refused the request, or no quorum agreed.
        Timeout: not in time; it may be later.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        left = deadline - asked
        try:
            found = client.prediction(identity, max(0.0, min(WAIT_S, left, client.timeout_s / 2)))
        except NotFound:
            found = {"state": "waiting for a block"}
            if client.transaction(identity)["state"] == "included":
                client.wait(identity, 1.0)  # raises what the chain said
        if found["state"] == "answered":
            return found
        if found["state"] == "failed":
            raise Rejected(
                f"prediction {identity[:8]}: no quorum agreed in time",
                "the fee is back, unless hardly a validator could get the rows",
            )
        if left <= 0:
            raise Timeout(
                f"prediction {identity[:8]} is {found['state']}",
                f"it goes on: GET /v1/predictions/{identity}",
            )
        if notify is not None:
            notify(f"prediction {identity[:8]} is {found['state']}")
        # A node lets so many wait; it answers others at once, and they ask again.
        time.sleep(max(0.0, min(client.poll_s - (time.monotonic() - asked), left)))


def read_answers(client: Client, found: Json) -> list[Any]:
    """Return the answers of an answered request, fetched by content id where they are long.

    Raises:
        Rejected: the request ended without an answer.
        VerificationFailed: the node sent other bytes.
    """
    if found["outcome"] != "answered":
        raise Rejected(f"the validators agree: {str(found['outcome']).replace('_', ' ')}")
    if found["answers"] is not None:
        return list(found["answers"])
    return list(json.loads(client.data(str(found["content"]))))
