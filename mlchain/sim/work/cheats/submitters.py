"""Submitters: jobs that break machines, and floods that drown what matters."""

from __future__ import annotations

import trio
from msgspec.structs import replace

from mlchain.errors import MlchainError
from mlchain.sim.work.cheat import Cheat
from mlchain.sim.work.order import absent_data, overflow_job, sign, small_slices_job
from mlchain.vm.context import Payload
from mlchain.vm.credits import WORK
from mlchain.vm.families.accounts import Transfer, get_account
from mlchain.vm.families.jobs import JOBS
from mlchain.vm.families.submit import SubmitJob

MALLORY = "mallory"


class Overflow(Cheat):
    """Orders a job whose numbers overflow."""

    row = "13 overflow job"
    corrupts = "submitter"

    def order(self) -> None:
        """Add it to what is ordered."""
        self.world.orders.append(overflow_job(self.rng))


class NoData(Cheat):
    """Orders a job on data that nobody has."""

    row = "21 a job that cannot be run"
    corrupts = "submitter"

    def order(self) -> None:
        """Add it to what is ordered."""
        self.world.orders.append(absent_data(self.rng))


class Bomb(Cheat):
    """Hands in jobs that are cheap to post and dear to check; all must be refused."""

    row = "21 huge job, verification bomb"
    corrupts = "submitter"

    async def run(self) -> None:
        """Hand it in."""
        honest = self.world.orders[0].submit
        for change in (
            {"steps": 2**40, "segment": 2**18},
            {"steps": 2**20, "chunk": 2**20},
            {"steps": 10**5, "chunk": 1, "segment": 1},
            {"fee": 0},
            {"plan": honest.plan[:-7]},
            {"tier": "none"},
        ):
            await trio.sleep(1.5)
            await hand_in(self, replace(honest, **change))

    def is_refused(self) -> bool:
        """Whether nothing of it became a job."""
        place = next(p for p in self.world.honest("validator") if p.node is not None)
        assert place.node is not None
        jobs = JOBS.items(place.node.chain.state())
        return all(key in self.world.jobs for (key,), _ in jobs)


class OrderTwice(Cheat):
    """Orders one training twice, whose seed it fixed: it may be computed before it is asked for."""

    row = "19 repeated and prepared work"
    corrupts = "submitter"

    def order(self) -> None:
        """Order nothing else."""
        self.world.orders[:] = [small_slices_job(self.rng)] * 2

    def is_refused(self) -> bool:
        """Whether nobody earned turns by it."""
        place = next(p for p in self.world.honest("validator") if p.node is not None)
        assert place.node is not None
        return not any(True for _ in WORK.items(place.node.chain.state()))


class Crowd(Cheat):
    """Pays for a flood of transactions at high prices, to crowd out claims and evidence."""

    row = "22 outbid claims and evidence"
    corrupts = "submitter"

    async def run(self) -> None:
        """Hand it in."""
        for _ in range(12):
            await trio.sleep(1)
            for _ in range(6):
                await hand_in(self, Transfer(bytes(32), 1), price=50)


async def hand_in(cheat: Cheat, payload: Payload, price: int = 1) -> None:
    """Hand in a transaction of mallory's at any node."""
    for place in cheat.world.honest("validator"):
        node = place.node
        if node is None:
            continue
        sender = cheat.world.mallory
        nonce = max(
            node.chain.mempool.next_nonce(sender), get_account(node.chain.state(), sender).nonce
        )
        with place.speaking():
            try:
                await node.submit_transaction(
                    sign(payload, nonce, cheat.world.genesis, MALLORY, price)
                )
            except MlchainError:
                continue
        return


__all__ = ["Bomb", "Crowd", "NoData", "Overflow", "SubmitJob"]
