"""Content that is kept, over HTTP: the operator pins, lets go and collects, nobody else does."""

import threading
from contextlib import AsyncExitStack

import pytest
import trio
from web_harness import BYTES, open_web

from mlchain.ledger.unixfs import cid_of, cid_text

HERE, THERE = b"here", b"there"


def name(data: bytes) -> str:
    return cid_text(cid_of(data))


def test_the_operator_pins_what_another_node_has_and_collects_the_rest():
    async def main() -> None:
        async with open_web() as web:

            async def post(path: str):
                return await web.admin.post(f"/v1/{path}")

            await web.http.post("/v1/data", content=HERE, headers=BYTES)
            web.node.elsewhere[cid_of(THERE)] = THERE
            pinned = (await post(f"data/{name(THERE)}/pin")).json()
            assert (pinned["whole"], pinned["pinned"], pinned["size"]) == (True, True, 5)
            rows = (await web.admin.get("/v1/content")).json()["files"]
            assert {row["cid"]: row["pinned"] for row in rows[:2]} == {
                name(THERE): True,
                name(HERE): False,
            }
            assert (await post("content/collect")).json()["freed"] >= len(HERE)
            assert (await web.http.get(f"/v1/data/{name(HERE)}")).status_code == 404
            assert (await web.http.get(f"/v1/data/{name(THERE)}")).content == THERE

            assert (await post(f"data/{name(THERE)}/unpin")).json() == {"ok": True}
            assert (await post("content/collect")).json()["freed"] == len(THERE)
            assert (await post(f"data/{name(HERE)}/pin")).status_code == 404

    trio.run(main)


def test_who_holds_a_dataset_is_told_by_name():
    async def main() -> None:
        from factories import make_chain

        from mlchain.vm.families.jobs import JOBS

        chain = make_chain(4, 2)
        async with open_web(chain) as web:

            async def held(cid: bytes):
                return (await web.http.get(f"/v1/data/{cid_text(cid)}/holders")).json()

            chain.run_job()
            ((_, job),) = JOBS.items(chain.chain.state())
            after = await held(job.dataset)
            assert after["registered"] and after["available"] and after["validators"] == 4
            assert len(after["holders"]) >= 3
            assert all(holder.startswith("validator-") for holder in after["holders"])
            nobody = await held(cid_of(HERE))
            assert (nobody["registered"], nobody["available"], nobody["holders"]) == (
                False,
                False,
                [],
            )

    trio.run(main)


def test_the_list_of_files_comes_in_pages():
    async def main() -> None:
        async with open_web() as web:
            for n in range(5):
                await web.http.post("/v1/data", content=b"file %d" % n, headers=BYTES)
            web.node.content.pin(cid_of(b"never added"))
            whole = (await web.admin.get("/v1/content")).json()["files"]
            assert [row["cid"] for row in whole[:2]] == [name(b"never added"), name(b"file 4")]
            pages, query = [], "limit=2"
            while query:
                page = (await web.admin.get(f"/v1/content?{query}")).json()
                pages.append(page["files"])
                query = f"limit=2&before={page['before']}" if page["before"] else ""
            assert [row for page in pages for row in page] == whole and max(map(len, pages)) == 2
            assert (await web.admin.get("/v1/content?limit=0")).status_code == 422
            assert (await web.http.get("/v1/content")).status_code == 404

    trio.run(main)


@pytest.mark.parametrize("is_defended", [True, False])
def test_a_file_that_is_pinned_while_a_collection_runs_stays(is_defended):
    async def main() -> bool:
        async with open_web() as web:
            keeper, store = web.node.keeper, web.node.content
            cid, files = store.put(HERE), store.files
            looked, go, turn = trio.Event(), threading.Event(), trio.Lock()
            keeper._turn = turn if is_defended else AsyncExitStack()

            def slowly(*args):
                found = files(*args)
                trio.from_thread.run_sync(looked.set)
                go.wait(60)
                return found

            store.files = slowly
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeper.collect)
                await looked.wait()  # the collection knows the pins there are
                nursery.start_soon(keeper.pin, cid)
                while not store.is_pinned(cid) and not turn.statistics().tasks_waiting:
                    await trio.sleep(0.001)
                web.node.elsewhere[cid] = HERE
                go.set()
            assert store.is_pinned(cid)
            return store.has(cid)

    assert trio.run(main) == is_defended


def test_a_full_node_takes_no_more_until_it_has_collected():
    async def main() -> None:
        async with open_web() as web:
            keeper = web.node.keeper
            keeper.quota = 1_000_000 + await keeper.used()
            await keeper.collect()
            big = bytes(range(250)) * 12_000
            answer = await web.http.post("/v1/data", content=big, headers=BYTES)
            assert answer.status_code == 422 and "--content-quota" in answer.json()["hint"]
            await keeper.collect()
            answer = await web.http.post("/v1/data", content=big[:500_000], headers=BYTES)
            assert answer.status_code == 200

    trio.run(main)


def test_what_a_job_left_is_needed_until_nobody_can_accuse_it_any_more():
    from factories import make_chain

    from mlchain.node.keeper import needed_content
    from mlchain.vm.families.jobs import JOBS, SEGMENTS
    from mlchain.vm.params import get_params

    chain = make_chain(4, 2)
    chain.run_job()
    state = chain.chain.state()
    leaves = {s.commit.leaves_content for _, s in SEGMENTS.items(state) if s.commit is not None}
    ((_, job),) = JOBS.items(state)
    last = job.height + get_params(state).unbonding_blocks
    assert leaves and leaves <= {*needed_content(state, last)}
    assert not leaves & {*needed_content(state, last + 1)}


def test_what_open_jobs_and_models_rest_on_outlives_a_collection():
    async def main() -> None:
        from factories import make_chain

        from mlchain.node.keeper import needed_content

        chain = make_chain(4, 2)
        chain.run_job()
        async with open_web(chain) as web:
            cid = web.node.content.put(b"nobody needs this")
            needed = needed_content(chain.chain.state(), chain.store.height)
            assert needed and all(web.node.content.has(content) for content in needed)
            await web.node.keeper.collect()
            assert all(web.node.content.has(content) for content in needed)
            assert not web.node.content.has(cid)

    trio.run(main)
