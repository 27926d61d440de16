"""A member with good keys sends anything at all: nodes live, agree, stay small and say why."""

import pytest
from hostile import REQUESTS, Hostile
from process_network import Network, until

from mlchain.vm.families.accounts import Transfer

MAX_GROWTH_BYTES = 160 << 20
"""What queues, the mempool and the allocator may hold on to."""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """3 of 4 validators and a worker run; the other of each is played by the tests."""
    network = Network(tmp_path_factory.mktemp("net"), 4, 2)
    honest = [*network.validators[:3], "worker-2"]
    try:
        network.start(*honest)
        network.wait_ready(*honest)
        until(lambda: send_one(network) and network.top() >= 1, "a first block")
        yield network
    finally:
        network.stop()


def send_one(network: Network) -> bool:
    """Let somebody want a block."""
    from process_network import sender_key

    key, client = sender_key(0), network.client("validator-1")
    nonce = int(client.account(key.public.hex())["nonce"])
    identity = client.send(Transfer(bytes(32), 1), key, nonce=nonce)
    until(lambda: client.transaction(identity)["state"] == "included", "a transfer")
    return True


@pytest.fixture
def watched(network):
    """Blocks go on afterwards, memory is bounded, nobody met a bug."""
    honest = network.alive
    before = {name: network.resident_bytes(name) for name in honest}
    height = network.top()
    yield network
    assert network.alive == honest
    send_one(network)
    until(lambda: all(network.height(name) > height for name in honest), "blocks after the attack")
    grown = {name: network.resident_bytes(name) - before[name] for name in honest}
    assert max(grown.values()) < MAX_GROWTH_BYTES, grown
    for name in honest:
        assert "Traceback" not in network.log(name), network.log(name)[-4000:]


def said(network: Network, words: str) -> bool:
    return any(words in network.log(name) for name in network.alive)


def test_every_request_protocol_answers_or_says_why_not(watched):
    member = Hostile(watched, "worker-1", 2)
    member.play(member.in_requests)
    for protocol in REQUESTS:
        assert member.refusals[protocol], protocol
        assert "the peer failed to answer" not in member.refusals[protocol], "a bug of ours"
    assert any("is not served" in text for text in member.refusals["/mlchain/no-such-thing/1"])
    good = [protocol for protocol in REQUESTS if "blocks" in protocol or "have" in protocol]
    assert all(member.answered.get(protocol) for protocol in good), "good questions among them"


def test_nonsense_in_gossip_is_survived_and_named(watched):
    member = Hostile(watched, "worker-1", 3)
    member.play(member.in_gossip)
    until(lambda: "HeadNews" in watched.log("worker-2"), "a line of who listens to news")


def test_frames_against_the_rules_cost_the_link(watched):
    member = Hostile(watched, "validator-4", 4)
    member.play(member.against_the_framing)
    until(lambda: said(watched, "broke a rule"), "a line that says why")


@pytest.mark.parametrize("name", ["validator-4", "worker-1"])
def test_nonsense_on_every_channel_is_survived(watched, name):  # the last: it ends in a ban
    member = Hostile(watched, name, 1)
    member.play(member.on_channels)
    assert member.sent > 100, "before it was cut off"
    until(lambda: said(watched, "broke a rule: Batch"), "a line that says why")
    if name == "validator-4":
        until(lambda: said(watched, "bad-message"), "a line that says why")
