"""What the API needs of a node."""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import Path, Query

from mlchain.ledger.content import ContentStore
from mlchain.ledger.state import MAX_KEY_BYTES
from mlchain.node.job_query import MAX_ROWS
from mlchain.node.keeper import Keeper
from mlchain.node.prosecution import Cases
from mlchain.vm.families.jobs import JobState
from mlchain.web.metrics import MetricsSource
from mlchain.web.stream import BlockSource

Height = Annotated[int, Path(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]

# Said in the description only: what parses them says better what is wrong.
HASH_PATTERN = "^[0-9a-fA-F]{64}$"
HashText = Annotated[str, Path(json_schema_extra={"pattern": HASH_PATTERN})]
AccountText = Annotated[
    str, Path(json_schema_extra={"pattern": "^([0-9a-fA-F]{64}|mlc1[02-9ac-hj-np-z]{58})$"})
]
CidText = Annotated[str, Path(json_schema_extra={"pattern": "^baf(krei|ybei)[a-z2-7]{52}$"})]
KeyText = Annotated[
    str, Path(json_schema_extra={"pattern": f"^([0-9a-fA-F]{{2}}){{1,{MAX_KEY_BYTES}}}$"})
]
JobCursor = Annotated[str, Query(json_schema_extra={"pattern": f"^$|{HASH_PATTERN}"})]
StateName = Annotated[
    str, Query(json_schema_extra={"enum": ["", *(name.lower() for name in JobState.__members__)]})
]


class NodeApi(BlockSource, MetricsSource, Protocol):
    """What the API needs of a node. `Node` fits."""

    content: ContentStore
    keeper: Keeper
    cases: Cases

    async def submit_transaction(self, data: bytes) -> bytes:
        """Admit an encoded transaction and return its id.

        Raises:
            MlchainError: says why not.
        """
        ...

    async def gather_files(self, job_id: bytes) -> None:
        """Fetch from peers what the job's receipt carries and is not here yet, as far as had."""
        ...
