"""The development chain's genesis file belongs to the code beside it."""

from __future__ import annotations

from pathlib import Path

from mlchain.cli.devgenesis import make_dev_genesis
from mlchain.ledger.genesis import check_genesis, dump_genesis

FILE = Path(__file__).parents[2] / "genesis" / "dev.json"


def test_the_file_is_what_the_code_makes() -> None:
    """Stale? `python -m mlchain.cli.devgenesis > genesis/dev.json`."""
    assert FILE.read_text() == dump_genesis(make_dev_genesis())


def test_it_is_a_sound_genesis_of_public_keys() -> None:
    genesis = make_dev_genesis()
    check_genesis(genesis)
    assert genesis.is_dev
