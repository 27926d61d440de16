"""What Prometheus reads: the names, and that they follow the chain."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import trio
from factories import make_chain
from prometheus_client.parser import text_string_to_metric_families
from web_harness import open_web

from mlchain.web.metrics import Metrics, folder_sizes

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
STATE_SYNC = "mlchain_state_sync"
"""Of a node without a chain: test_newcomer.py."""


async def read(web) -> dict[str, float]:
    """Return samples by name and labels, without those of buckets."""
    text = (await web.http.get("/metrics")).text
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sample.labels.items()): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def test_blocks_and_what_they_hold_are_counted_as_they_come():
    async def main() -> None:
        chain = make_chain(4, 2)
        async with open_web(chain) as web:
            before = await read(web)
            chain.run_job()
            with trio.fail_after(5):
                while (found := await read(web))["mlchain_height"] != chain.store.height or (
                    found["mlchain_consensus_rounds_total"] < chain.store.height
                ):
                    await trio.sleep(0.01)
            height = chain.store.height
            assert before["mlchain_block_interval_seconds_count"] == 0
            assert found["mlchain_block_interval_seconds_count"] == height
            assert found["mlchain_block_interval_seconds_sum"] == height  # a second each here
            assert found["mlchain_consensus_rounds_total"] == height
            assert found["mlchain_missed_blocks_total"] == 0
            assert found["mlchain_coverage_ratio"] == 1.0  # the job is so small
            assert found["mlchain_jobs,state=settled"] == 1
            assert found["mlchain_jobs,state=running"] == 0
            assert (found["mlchain_peers"], found["mlchain_disputes_total"]) == (1, 0)

    trio.run(main)


def test_streams_that_are_open_are_counted():
    async def main() -> None:
        async with open_web() as web:
            async with web.http.stream("GET", "/v1/stream"):
                assert (await read(web))["mlchain_sse_clients"] == 1
            with trio.fail_after(5):
                while (await read(web))["mlchain_sse_clients"]:
                    await trio.sleep(0.01)

    trio.run(main)


def test_an_auditors_slices_are_counted_by_what_came_of_them():
    async def main() -> None:
        async with open_web() as web:
            examiner = SimpleNamespace(on_slice=None)
            web.node.auditor = SimpleNamespace(examiner=examiner)
            metrics = Metrics(web.node)
            for result, seconds in (("equal", 0.25), ("equal", 0.5), ("skipped", 0.0)):
                examiner.on_slice(result, seconds)
            text = (await metrics.text()).decode()
            assert 'mlchain_slices_total{result="equal"} 2.0' in text
            assert 'mlchain_slices_total{result="skipped"} 1.0' in text
            assert 'mlchain_slices_total{result="differ"} 0.0' in text
            assert "mlchain_slice_seconds_sum 0.75" in text

    trio.run(main)


def test_the_size_of_each_part_of_a_node_is_told(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(bytes(100))
    (tmp_path / "spool" / "deep").mkdir(parents=True)
    (tmp_path / "spool" / "deep" / "b").write_bytes(bytes(7))
    sizes = folder_sizes(tmp_path)
    assert (sizes["data"], sizes["spool"], sizes["wal"]) == (100, 7, 0)


def test_every_metric_is_on_the_page_and_no_label_grows_with_the_chain():
    async def main() -> None:
        chain = make_chain(4, 2)
        job = chain.run_job()
        async with open_web(chain) as web:
            text = (await web.http.get("/metrics")).text
            told = re.findall(r"`(mlchain_\w+)", DOCS.read_text())
            names = [family.name for family in text_string_to_metric_families(text)]
            told = [name.removesuffix("_total") for name in told if STATE_SYNC not in name]
            assert sorted(told) == sorted(names)
            assert job.hex() not in text and "mlc1" not in text and "bafk" not in text

    trio.run(main)
