"""A real validator with a destroyed database comes back by --repair, votes, contradicts nothing."""

import pytest
from ledgers import Ledgers
from process_network import Network, start_node, until


@pytest.mark.slow
def test_a_validator_with_a_destroyed_database_is_repaired_and_votes(tmp_path):
    network = Network(tmp_path, 4, 0, heartbeat_ms=100, block_interval_ms=100)
    *others, hurt = network.validators
    try:
        network.start()
        network.wait_ready()
        network.wait_height(hurt, 30)
        network.kill(hurt)
        data = network.home(hurt) / "data"
        (data / "CURRENT").unlink()
        network.start(hurt)
        until(lambda: network.processes[hurt].poll() is not None, "the node to refuse")
        ended = network.processes.pop(hurt)
        ended.communicate()
        assert ended.returncode == 7
        assert "--repair" in network.log(hurt)

        command = [*network.net.command(network.plans[hurt], True), "--repair"]
        network.processes[hurt] = start_node(command, network.home(hurt) / "node.log")
        network.wait_ready(hurt)
        assert "moved_to" in network.log(hurt) and (data.parent / "data.damaged-1").is_dir()
        network.wait_height(hurt, network.top(*others))
        network.kill(others[0])  # nothing is decided without the repaired one now
        goal = network.top(others[1]) + 10
        network.wait_height(hurt, goal)
        assert hurt in network.client(hurt).block(goal - 1)["signed_by"]
        assert network.state_root(hurt, goal - 1) == network.state_root(others[1], goal - 1)
    finally:
        network.stop()
    homes = [network.home(name) for name in network.validators]
    assert Ledgers(network.genesis, homes).complaints == []
