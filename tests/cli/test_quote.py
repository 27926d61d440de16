"""`mlchain job quote`: what a job costs and what its tier can find, before it is paid for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from msgspec.structs import asdict, replace
from vm.world import PARAMS, make_genesis

from mlchain.consensus.work.assurance import Assurance, Shape, parse_tier
from mlchain.ledger.genesis import dump_genesis
from mlchain.vm.receipt import decimal_text

FILE = """\
[job]
name = "flowers"
fee = 120_000
tier = "{tier}"
[data]
source = "flowers.csv"
[model]
kind = "softmax"
[training]
rate = 0.1
batch = 4
steps = {steps}
chunk = 2
segments = 2
"""


@pytest.fixture
def quote(home, run_json):
    """The quote of a job on a chain of four, as a program reads it."""
    rows = "".join(f"{i}.5,{'small' if i < 10 else 'large'}\n" for i in range(20))
    (home / "flowers.csv").write_text("size,kind\n" + rows)

    def ask(tier: str = "audited", steps: int = 2000, **changes: int):
        params = replace(PARAMS, **changes)
        (home / "genesis.json").write_text(dump_genesis(make_genesis(params=params)))
        (home / "job.toml").write_text(FILE.format(tier=tier, steps=steps))
        return run_json("job", "quote", "job.toml", "--genesis", "genesis.json")

    return ask


def test_a_quote_goes_by_the_parameters_that_the_node_has_now(home, run_json, node, quote):
    quote()  # writes the files
    genesis = make_genesis(params=replace(PARAMS, slash_worker=7))
    node.routes["GET /v1/genesis"] = dump_genesis(genesis).encode()
    node.routes["GET /v1/governance"] = {"params": {**asdict(genesis.params), "slash_worker": 9}}
    code, answer = run_json("job", "quote", "job.toml", "--url", node.url)
    assert (code, answer["data"]["slash_worker"], answer["data"]["validators"]) == (0, 9, 3)


def warned(answer: tuple[int, dict], word: str) -> bool:
    return any(word in text for text in answer[1]["data"]["warnings"])


def test_every_tier_is_a_row_and_says_what_the_chain_will_do(quote):
    code, answer = quote()
    assert code == 0
    data = answer["data"]
    assert (data["chunks"], data["segments"], data["validators"], data["faults"]) == (1000, 2, 4, 1)
    for row in data["tiers"]:
        found = Assurance(parse_tier(row["tier"]), Shape(1000, 500, 4))
        assert row["slice"] == found.rerun and Fraction(row["cost"]) == found.cost
        misses = [decimal_text(found.miss(forged)) for forged in (1, 10, 100)]
        assert misses == [row["miss_one"], row["miss_1_in_100"], row["miss_1_in_10"]]
    names = [row["tier"] for row in data["tiers"]]
    assert names == ["economic", "audited", "covered:2", "replicated"]


def test_a_tier_that_promises_less_than_one_may_think_is_warned_of(quote):
    assert warned(quote("economic"), "not who wants to spoil yours")
    assert warned(quote("audited"), "one forged chunk is missed")
    assert not quote("covered:2")[1]["data"]["warnings"]
    assert warned(quote("covered:1"), "one forged chunk is missed")


def test_a_short_job_is_told_what_would_be_cheaper_and_surer(quote):
    assert warned(quote(steps=100), "50 chunks are few")
    assert not warned(quote(steps=2000), "are few")


def test_a_job_that_the_chain_would_refuse_is_told_so(quote):
    assert warned(quote("replicated", max_verify_gas=10), "use more segments")
    code, answer = quote("covered:5")
    assert code == 5 and "the chain has 4" in answer["error"]["message"]
    assert quote("covered")[0] == 2


def test_what_takes_longer_than_the_chain_waits_is_named_with_a_number_of_segments(quote):
    gas = quote()[1]["data"]["gas"]
    work_ms = gas // 2 // 10**6
    assert work_ms >= 1, "of a segment"
    assert not warned(quote(segment_timeout_ms=4 * work_ms), "of work")
    late = quote(segment_timeout_ms=work_ms)
    assert warned(late, "the chain gives a worker") and warned(late, "with 5 segments")
    assert warned(quote(attest_window=1, block_interval_ms=0), "when blocks are full")


def test_a_forger_is_taken_to_lose_what_it_can_choose_to_lose(quote):
    """By serving the forged chunk to nobody it pays the smaller penalty."""

    def deterred(**slashes: int) -> list[int | None]:
        return [row["deterred_gain"] for row in quote(**slashes)[1]["data"]["tiers"]]

    withheld = deterred(slash_worker=10**9, slash_unavailable=10**6)
    assert withheld == deterred(slash_worker=10**6, slash_unavailable=10**9)
    assert withheld < deterred(slash_worker=10**9, slash_unavailable=10**9)


def test_penalties_too_small_to_deter_are_named(quote):
    free = {"slash_worker": 0, "slash_lazy": 0, "audit_permille": 0}
    answer = quote(**free)
    assert warned(answer, "not checking pays")
    assert not warned(quote(), "pays")


def test_people_get_a_table_with_their_tier_marked(quote, run, home):
    quote("covered:2")
    text = run("job", "quote", str(Path("job.toml")), "--genesis", "genesis.json").output
    assert "> covered:2" in text and "1000 chunks in 2 segments" in text
