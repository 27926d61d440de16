"""A chain copied from a node that runs, block by block checked and executed, and its content.

The node is believed in nothing: every block must follow, be certified by those who then voted, and
give the state that its header says; content must equal its id.
"""

from __future__ import annotations

from pathlib import Path

from mlchain.client.archive import files_of, follow
from mlchain.client.client import Client
from mlchain.client.files import fetch_file
from mlchain.client.rerun import Progress
from mlchain.errors import NotFound
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.kv import KeyValue
from mlchain.ledger.store import Store
from mlchain.ledger.unixfs import cid_text
from mlchain.vm.initial import write_genesis


def copy_chain(
    client: Client, genesis: Genesis, kv: KeyValue, on_block: Progress = lambda done, total: None
) -> Store:
    """Return a store in `kv` of the chain of a node, up to the block that is its last now.

    Raises:
        NotFound: it has pruned blocks, or has none.
        MlchainError: a block of it is wrong.
    """
    store = Store.create_or_open(kv, genesis, lambda state: write_genesis(state, genesis))
    last = max(1, int(client.status()["height"]))
    while store.height < last:
        for block, commit in client.block_page(store.height).certified():
            if store.height < last:
                follow(store, block, commit)
                on_block(store.height, last)
    return store


def copy_content(
    client: Client, store: Store, content: ContentStore, folder: Path, on_file: Progress
) -> None:
    """Fetch what the finished jobs of a chain rest on; what the node does not have is left out."""
    names = files_of(store)
    for done, name in enumerate(names):
        path = folder / "file"
        try:
            named = fetch_file(client, cid_text(name), path)
        except NotFound:
            continue
        with path.open("rb") as file:
            content.put(file, named.profile)
        path.unlink()
        on_file(done + 1, len(names))
