"""The light client against nodes that are good, behind, lying, or of a forked chain."""

from __future__ import annotations

import pytest
from factories import GrowingChain, make_chain, make_genesis
from msgspec.structs import replace

from mlchain import codec
from mlchain.client.light import (
    Conflicting,
    LightClient,
    load_trusted,
    save_trusted,
    state_key,
    trust_genesis,
)
from mlchain.consensus.light import LightQuestion, find_equivocation, make_answer, make_path
from mlchain.crypto import address
from mlchain.errors import (
    CodecError,
    ConfigError,
    MlchainError,
    NotFound,
    Unreachable,
    VerificationFailed,
)
from mlchain.vm.families.accounts import Account, Transfer


class Answers:
    """A node that answers from a chain, after a change of our choice."""

    def __init__(self, chain, url="good", change=lambda answer: answer):
        self.store, self.url, self.change = chain.store, url, change

    def light_path(self, question):
        return self.change(make_path(self.store, question))

    def prove(self, key):
        return self.change(make_answer(self.store, key))


class Down:
    url = "down"

    def light_path(self, question):
        raise Unreachable("no node answers")

    prove = light_path


@pytest.fixture(scope="module")
def chain():
    chain = make_chain(4, 1)
    job = chain.submit()
    chain.start(job)
    chain.commit_segment(job)
    chain.accuse_falsely("validator-2", job)
    chain.grow(5)
    return chain


def client_of(chain, *sources, notes=None):
    note = notes.append if notes is not None else lambda text: None
    return LightClient(chain.genesis, sources, trust_genesis(chain.genesis), note)


def test_it_follows_from_the_genesis_file_and_tells_how_many_nodes_agree(chain):
    client = client_of(chain, Answers(chain), Down(), Answers(chain, "second"))
    trusted = client.sync()
    assert (trusted.height, trusted.id) == (chain.store.height, chain.store.head_id)
    assert client.agreed == ["good", "second"]
    assert client.sync() == trusted, "again, with nothing new"


def test_a_value_is_taken_with_its_proof_also_when_the_chain_went_on(chain):
    client = client_of(chain, Down(), Answers(chain))
    key, record = state_key("account", address(chain.alice.public))
    value = client.get(key)
    assert record is Account and codec.decode(Account, value).nonce == 2
    chain.grow(1)
    assert client.get(key) == value and client.trusted.height == chain.store.height
    assert client.get(state_key("job", "00" * 32)[0]) is None


def lie_about_the_value(answer):
    return replace(answer, value=codec.encode(Account(10**15, 0)))


def lie_about_the_head(path):
    *before, last = path.blocks
    header = replace(last.header, state_root=bytes(32))
    return replace(path, blocks=(*before, replace(last, header=header)))


def test_a_node_that_lies_is_named_and_the_next_one_is_asked(chain):
    notes: list[str] = []
    liar = Answers(chain, "liar", lie_about_the_head)
    client = client_of(chain, liar, Answers(chain), notes=notes)
    assert client.sync().id == chain.store.head_id
    assert [note for note in notes if note.startswith("liar: ")]
    alone = client_of(chain, Answers(chain, "liar", lie_about_the_value))
    alone.trusted = client.trusted
    with pytest.raises(VerificationFailed):
        alone.get(state_key("account", address(chain.alice.public))[0])
    with pytest.raises(MlchainError):
        client_of(chain, liar).sync()


def test_a_node_that_answers_with_nothing_or_something_else_leads_nowhere(chain):
    for change in (
        lambda path: replace(path, blocks=()),
        lambda path: replace(path, blocks=path.blocks[:-1]),
    ):
        with pytest.raises(VerificationFailed):
            client_of(chain, Answers(chain, "odd", change)).sync()


def test_a_node_that_is_behind_does_not_bring_us_back(chain):
    client = client_of(chain, Answers(chain))
    client.sync()
    young = make_chain(4, 1)
    young.grow(2)
    client.sources = [Answers(young, "young")]
    with pytest.raises(NotFound, match="is at height 2"):
        client.sync()
    assert client.trusted.id == chain.store.head_id


def test_one_starts_from_a_block_whose_hash_somebody_vouched_for(chain):
    client = client_of(chain, Answers(chain))
    block = make_path(chain.store, LightQuestion(9, 6)).blocks[-1]
    true = block.commit.block_id
    client.start_from(6, true)
    assert client.trusted.height == 6 and client.sync().id == chain.store.head_id
    with pytest.raises(VerificationFailed, match="not the one to trust"):
        client.start_from(6, bytes(32))


def test_two_certified_histories_are_found_and_shown():
    genesis = make_genesis(4, 1)
    one, other = GrowingChain(genesis), GrowingChain(genesis)
    one.grow(3)
    other.grow(1)
    other.send(Transfer(bytes(range(32)), 7))
    other.grow(4)
    notes: list[str] = []
    client = client_of(one, Answers(one, "one"), Answers(other, "other"), notes=notes)
    with pytest.raises(Conflicting, match="two certified blocks 3") as caught:
        client.sync()
    conflict = caught.value.conflict
    assert {conflict.first.header.height, conflict.second.header.height} == {3}
    assert len(find_equivocation(conflict)) == 4
    assert codec.decode(type(conflict), codec.encode(conflict)) == conflict
    # Control: whoever asks one node only does not know.
    assert client_of(one, Answers(one)).sync().height == 3


def test_what_was_trusted_last_is_kept_and_a_damaged_or_foreign_file_is_refused(tmp_path, chain):
    file, genesis = tmp_path / "light" / "head", chain.genesis
    assert load_trusted(file, genesis) is None
    client = client_of(chain, Answers(chain))
    save_trusted(file, genesis, client.sync())
    assert load_trusted(file, genesis) == client.trusted
    with pytest.raises(ConfigError, match="another chain"):
        load_trusted(file, replace(genesis, time_ms=5))
    data = file.read_bytes()
    for spoilt in (data[:-1], b"", data + b"x", bytes(100_000)):
        file.write_bytes(spoilt)
        with pytest.raises(ConfigError):
            load_trusted(file, genesis)


def test_names_that_are_none_are_refused():
    for kind, name in (("account", "alice"), ("job", "7f3a"), ("model", "zz"), ("job", "")):
        with pytest.raises(CodecError):
            state_key(kind, name)
