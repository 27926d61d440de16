"""The archive of a node that runs: copied over its API, and nothing it says is taken on trust."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest
import trio
from factories import make_chain
from msgspec.structs import replace
from web_harness import open_web

from mlchain.client import archive as archives
from mlchain.client.archive import verify_archive, write_archive
from mlchain.client.chain_copy import copy_chain, copy_content
from mlchain.client.client import Client
from mlchain.errors import InvalidBlock, MlchainError, NotFound, VerificationFailed
from mlchain.ledger import pages
from mlchain.ledger.content import ContentStore
from mlchain.ledger.kv import MemoryKeyValue


@pytest.fixture(scope="module")
def settled():
    chain = make_chain(4, 2)
    chain.run_job()
    chain.grow()
    return chain


def copied(chain, folder: Path) -> bytes:
    """Serve a chain, and return the archive that a client makes of it."""

    def fetch(url: str) -> bytes:
        out, content = io.BytesIO(), ContentStore(MemoryKeyValue())
        with Client(url) as client:
            store = copy_chain(client, chain.genesis, MemoryKeyValue())
            copy_content(client, store, content, folder, lambda done, total: None)
        write_archive(out, store, content)
        return out.getvalue()

    async def main() -> bytes | MlchainError:
        async with open_web(chain) as web:
            try:
                return await trio.to_thread.run_sync(partial(fetch, f"http://127.0.0.1:{web.port}"))
            except MlchainError as error:  # raised here it would come out in groups
                return error

    found = trio.run(main)
    if isinstance(found, MlchainError):
        raise found
    return found


def test_it_is_byte_for_byte_the_one_of_the_stopped_node(settled, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_BYTES", 3000)
    data = copied(settled, tmp_path)
    stopped = io.BytesIO()
    write_archive(stopped, settled.store, settled.content)
    assert data == stopped.getvalue()
    report = verify_archive(io.BytesIO(data), settled.genesis.hash, slices=2)
    assert report.failed is None and report.drawn == 2


@pytest.mark.parametrize("checks", [True, False], ids=["checked", "control: not checked"])
def test_a_block_without_the_certificate_of_those_who_vote_is_refused(
    settled, tmp_path, monkeypatch, checks
):
    honest = pages.make_page

    def forged(store, after):
        page = honest(store, after)
        commit = replace(page.commit, signatures=page.commit.signatures[:1])
        return replace(page, commit=commit)

    monkeypatch.setattr("mlchain.node.query.make_page", forged)
    if checks:
        with pytest.raises(VerificationFailed):
            copied(settled, tmp_path)
    else:
        monkeypatch.setattr(archives, "_check_link", lambda *_: None)
        assert copied(settled, tmp_path)


def test_a_block_that_gives_another_state_is_refused(settled, tmp_path, monkeypatch):
    honest = pages.make_page

    def forged(store, after):
        page = honest(store, after)
        header = replace(page.blocks[-1].header, state_root=bytes(32))
        return replace(page, blocks=(*page.blocks[:-1], replace(page.blocks[-1], header=header)))

    monkeypatch.setattr("mlchain.node.query.make_page", forged)
    monkeypatch.setattr(archives, "_check_link", lambda *_: None)
    with pytest.raises(InvalidBlock):
        copied(settled, tmp_path)


def test_beyond_the_last_block_there_is_no_page(settled):
    with pytest.raises(NotFound, match="the last is"):
        pages.make_page(settled.store, settled.store.height)
