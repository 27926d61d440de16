"""`mlchain dev`: what it refuses, and how a block is told; the chain itself is in tests/process."""

from __future__ import annotations

import pytest
from factories import make_chain

from mlchain.cli.blockline import block_lines, strip
from mlchain.cli.devnet import DevNet
from mlchain.errors import ConfigError
from mlchain.node.query import Query
from mlchain.p2p.transport import PeerStatus


@pytest.fixture
def chain_there(home, monkeypatch):
    """A chain of two validators in the folder `there`."""
    from msgspec.structs import replace

    from mlchain.cli import devnet

    monkeypatch.setattr(devnet, "PARAMS", replace(devnet.PARAMS, ticket_heights=50))
    return DevNet.open_or_create(home / "there", 2, False, (), lambda line: None)


def open_again(net: DevNet, **changes: object) -> DevNet:
    how = {"validators": None, "reset": False, "cheats": ()} | changes
    return DevNet.open_or_create(net.folder, say=lambda line: None, **how)


@pytest.mark.parametrize("where", ["0.0.0.0:8645", "192.0.2.7:1", "example.org:80", "[::]:1"])
def test_published_keys_are_not_shown_to_other_machines(run_json, home, where):
    code, document = run_json("dev", "--http", where)
    assert (code, document["error"]["code"]) == (2, "usage")
    assert "everybody has the keys" in document["error"]["message"]
    assert not (home / "data" / "mlchain" / "dev").exists(), "nothing was begun"


def test_an_address_that_is_none_is_a_mistake_of_the_command_line(run_json):
    code, document = run_json("dev", "--http", "here")
    assert (code, document["error"]["hint"]) == (2, "as in 127.0.0.1:8644")


def test_the_chain_there_is_taken_as_it_is(chain_there):
    assert open_again(chain_there).genesis == chain_there.genesis
    assert open_again(chain_there, validators=2).genesis == chain_there.genesis
    with pytest.raises(ConfigError, match="has 2 validators, not 3") as error:
        open_again(chain_there, validators=3)
    assert "--reset" in error.value.hint


def test_a_reset_makes_another_chain(chain_there):
    fresh = open_again(chain_there, validators=3, reset=True)
    assert fresh.genesis.hash != chain_there.genesis.hash
    assert len(fresh.genesis.validators()) == 3


def test_what_is_no_development_chain_is_never_removed(chain_there, home):
    (home / "mine").mkdir()
    (home / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else"):
        DevNet.open_or_create(home / "mine", None, True, (), print)
    assert (home / "mine" / "thesis.txt").exists()
    genesis = chain_there.genesis_file.read_text().replace('"dev-', '"bank-')
    chain_there.genesis_file.write_text(genesis)
    with pytest.raises(ConfigError, match="no development chain"):
        open_again(chain_there, reset=True)


def test_a_copied_genesis_does_not_make_a_folder_ours(chain_there, home):
    """What nodes leave is ours, and everything else in the folder somebody else's."""
    (chain_there.folder / "nodes.log").write_text("")
    assert open_again(chain_there, reset=True).genesis != chain_there.genesis, "the control"
    (home / "work").mkdir()
    (home / "work" / "genesis.json").write_bytes(chain_there.genesis_file.read_bytes())
    (home / "work" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"something else: thesis\.txt"):
        DevNet.open_or_create(home / "work", None, True, (), print)
    assert (home / "work" / "thesis.txt").exists()


def test_a_folder_beside_the_chain_is_left_alone(home, chain_there):
    (home / "late.new").mkdir()
    (home / "late.new" / "thesis.txt").write_text("years of work")
    net = DevNet.open_or_create(home / "late", 2, False, (), lambda line: None)
    assert net.genesis_file.exists() and (home / "late.new" / "thesis.txt").exists()


def test_a_beginning_that_was_cut_short_is_begun_again(chain_there, home, monkeypatch):
    """Keys are made beside the folder, which appears whole or not at all."""
    from mlchain.cli import devnet

    def stop(*how: object) -> None:
        raise KeyboardInterrupt

    before = set(home.iterdir())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(devnet, "write_network", stop)
        DevNet.open_or_create(home / "late", 2, False, (), lambda line: None)
    assert set(home.iterdir()) == before, "nothing half is left"
    net = DevNet.open_or_create(home / "late", 2, False, (), lambda line: None)
    assert net.genesis_file.exists() and set(home.iterdir()) == before | {home / "late"}


def test_only_a_node_that_is_there_can_cheat(chain_there):
    assert open_again(chain_there, cheats=("worker-1",)).cheats == {"worker-1": "skip:0.1"}
    with pytest.raises(ConfigError, match="no such node") as error:
        open_again(chain_there, cheats=("validator-9",))
    assert "validator-2" in error.value.hint and "worker-1" in error.value.hint


@pytest.mark.parametrize(
    ("seen", "chunks", "marks"),
    [((), 4, "····"), ((0, 3), 4, "█··█"), (range(40), 40, "█" * 20), ((1,), 40, "▄" + "·" * 19),
     ((), 0, ""), ((59,), 60, "·" * 19 + "▄")],
)  # fmt: skip
def test_a_strip_says_all_some_or_none(seen, chunks, marks):
    assert strip(tuple(seen), chunks) == marks


def test_a_job_is_told_block_by_block():
    from types import SimpleNamespace

    chain = make_chain(4, 2)
    chain.run_job()
    node = SimpleNamespace(
        name="v", membership=SimpleNamespace(members=()), worker=None,
        transport=SimpleNamespace(peers=lambda: list[PeerStatus]()),
        sync=SimpleNamespace(is_syncing=False),
    )  # fmt: skip
    query = Query(chain.chain, chain.genesis, chain.content, node)
    told = [list(block_lines(query, height, 1000)) for height in range(1, chain.store.height + 1)]
    assert all(lines[0].startswith(f"  #{n}") for n, lines in enumerate(told, 1))
    news = [line.strip() for _, *lines in told for line in lines]
    assert "blobs  submitted" in news[0] and "1 transaction" in news[1]
    assert [line for line in news if "committed by worker" in line]
    final = [line for line in news if "final" in line]
    assert len(final) == 2 and "████  4 of 4 slices re-run, equal" in final[0]
