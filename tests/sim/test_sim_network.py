"""The invented network: bad before the calm, reliable after it."""

from __future__ import annotations

from random import Random

from mlchain.sim.network import CALM_DELAY_MS, Network, Weather, make_weather

STORM = Weather(gst_ms=1000, loss=40, block_loss=30, repeat=20, delay_ms=20, partitions=3, envy=100)
SUN = Weather(gst_ms=1000, loss=0, block_loss=0, repeat=0, delay_ms=20, partitions=0, envy=0)


def arrivals(network: Network, now_ms: int, is_block: bool = False) -> list[list[int]]:
    return [network.delays(0, 1, now_ms, is_block) for _ in range(500)]


def test_after_the_calm_every_message_arrives_once_and_soon() -> None:
    for delays in arrivals(Network(Random(1), STORM, 4, []), 1000):
        assert len(delays) == 1 and 1 <= delays[0] <= CALM_DELAY_MS


def test_before_the_calm_messages_are_lost_repeated_and_late() -> None:
    network = Network(Random(1), Weather(1000, 40, 30, 20, 20, 0, 0), 4, [])
    small, blocks = arrivals(network, 10), arrivals(network, 10, is_block=True)
    assert any(len(d) == 2 for d in small) and max(d[0] for d in small if d) > 100
    lost, lost_blocks = (sum(not d for d in each) for each in (small, blocks))
    assert 150 < lost < 250 < lost_blocks < 450


def test_a_partition_separates_twins_and_ends_with_the_calm() -> None:
    network = Network(Random(2), STORM, 5, [(3, 4)])
    cut = [now for now in range(0, 1000, 5) if not network.is_connected(3, 4, now)]
    assert cut
    assert network.is_connected(3, 4, 1000)


def test_a_silenced_place_is_not_heard_but_hears() -> None:
    network = Network(Random(3), Weather(1000, 0, 0, 0, 20, 0, 100), 4, [])
    assert network.silences(0, 10)
    assert not network.is_connected(0, 1, 11) and network.is_connected(1, 0, 11)
    assert network.is_connected(0, 1, 1000)
    assert not network.silences(0, 1000)


def test_in_fair_weather_nothing_is_lost_and_nobody_silenced() -> None:
    network = Network(Random(4), SUN, 4, [])
    assert all(len(d) == 1 for d in arrivals(network, 10, is_block=True))
    assert not network.silences(0, 10)


def test_the_weather_depends_on_the_seed_alone() -> None:
    assert make_weather(Random(5), 1000) == make_weather(Random(5), 1000)
    assert len({make_weather(Random(seed), 1000) for seed in range(40)}) > 30
