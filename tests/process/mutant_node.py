"""TEST ONLY. A node with one wrong idea in it, to see that the soak's checks find it.

python tests/process/mutant_node.py MUTANT node …
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from mlchain.cli import main
from mlchain.crypto import parse_address
from mlchain.node.agreement import Agreement
from mlchain.node.query import Query
from mlchain.vm.context import Context
from mlchain.vm.families import accounts

SLOW_MS = 2_000


def acknowledges_early() -> None:
    """Says "included" of what only waits, before any block holds it. Its blocks take their time."""
    honest, account, wanted_at = Query.transaction, Query.account, Agreement._wanted_at

    def transaction(self: Query, text: str) -> dict[str, object]:
        row = honest(self, text)
        if row["state"] == "pending":
            row |= {"state": "included", "height": self._chain.height, "index": 0, "code": "ok"}
        return row

    def early(self: Query, text: str) -> dict[str, object]:
        row = account(self, text)
        return row | {"nonce": self._chain.mempool.next_nonce(parse_address(text))}

    Query.transaction, Query.account = transaction, early  # type: ignore[method-assign]
    Agreement._wanted_at = lambda self: wanted_at(self) + SLOW_MS  # type: ignore[method-assign]


def applies_twice() -> None:
    """Moves the money of a transfer twice."""
    honest = accounts.Transfer.execute

    def execute(self: accounts.Transfer, ctx: Context) -> None:
        honest(self, ctx)
        accounts.debit(ctx.state, ctx.sender, self.amount)
        accounts.credit(ctx.state, self.to, self.amount)

    accounts.Transfer.execute = execute  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "acknowledges-early": acknowledges_early,
    "applies-twice": applies_twice,
}


if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    sys.exit(main())
