"""What a node tells about its chain: the facts of the state, in shapes that clients rely on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from factories import GrowingChain, JobSpec, make_chain

from mlchain import codec, crypto
from mlchain.client.progress import describe_job
from mlchain.consensus.work.sampling import miss_probability
from mlchain.errors import CodecError, NotFound
from mlchain.ledger.content import cid_text
from mlchain.ledger.genesis import load_genesis
from mlchain.ml_runtime import Metrics
from mlchain.ml_runtime.op import real_to_bits
from mlchain.node.job_view import metrics_view
from mlchain.node.mempool import Mempool
from mlchain.node.plain import MAX_JSON_INTEGER, to_json
from mlchain.node.query import Query
from mlchain.vm.families.jobs import segment_slice
from mlchain.vm.receipt import decimal_text


def query_of(chain: GrowingChain, worker: object = None, **node: object) -> Query:
    view = {
        "name": "validator-0",
        "membership": SimpleNamespace(members=chain.genesis.members[:1]),
        "transport": SimpleNamespace(peers=list),
        "sync": SimpleNamespace(is_syncing=False),
        "worker": worker,
    }
    return Query(chain.chain, chain.genesis, chain.content, SimpleNamespace(**{**view, **node}))


@pytest.fixture(scope="module")
def settled():
    """A job of 600 chunks, sampled: enough that slices leave something out."""
    chain = make_chain(4, 2)
    spec = JobSpec(steps=600, chunk=1, segment=300, batch=4)
    job_id = chain.run_job(spec)
    return chain, query_of(chain), job_id


def test_everything_is_json(settled):
    chain, query, job_id = settled
    for view in (
        query.status(), query.validators(), query.workers(), query.blocks(), query.block(1),
        query.jobs()[0], query.job(job_id.hex()), query.account(chain.alice.public.hex()),
        query.transaction(job_id.hex()), list(query.job_events(1)),
    ):  # fmt: skip
        assert json.loads(json.dumps(view)) == view


def test_status_names_the_head_and_says_what_is_missing(settled):
    chain, _, _ = settled
    status = query_of(
        chain, membership=SimpleNamespace(members=()), sync=SimpleNamespace(is_syncing=True)
    ).status()
    assert (status["height"], status["block_id"]) == (chain.store.height, chain.store.head_id.hex())
    assert status["genesis"] == chain.genesis.hash.hex()
    assert (status["role"], status["syncing"], status["validators"]) == ("observer", True, 4)


def test_the_genesis_text_is_a_genesis_file_of_the_same_chain(settled, tmp_path):
    chain, query, _ = settled
    (tmp_path / "genesis.json").write_text(query.genesis())
    assert load_genesis(tmp_path / "genesis.json").hash == chain.genesis.hash


def test_an_account_is_found_by_address_and_by_key_and_an_unused_one_is_empty(settled):
    chain, query, _ = settled
    key = chain.alice.public
    assert query.account(crypto.address(key)) == query.account(key.hex())
    assert query.account(bytes(32).hex())["balance"] == 0
    with pytest.raises(CodecError):
        query.account("mlc1nobody")


def test_a_transaction_is_pending_then_included_with_its_outcome():
    chain = make_chain()
    query = query_of(chain)
    identity = chain.submit()
    found = query.transaction(identity.hex())
    assert (found["state"], found["kind"], found["code"]) == ("pending", "SubmitJob", None)
    chain.grow()
    found = query.transaction(identity.hex())
    assert (found["state"], found["code"], found["height"]) == ("included", "ok", 1)
    assert found["events"] == [f"job {identity.hex()} submitted"]
    assert query.transaction("ab" * 32)["state"] == "unknown"


def test_a_replaced_transaction_names_what_took_its_place(monkeypatch):
    query = query_of(make_chain())
    places = {b"\x01" * 32: b"\x02" * 32}
    monkeypatch.setattr(Mempool, "replacement", lambda self, identity: places.get(identity))
    found = query.transaction("01" * 32)
    assert (found["state"], found["replaced_by"]) == ("replaced", "02" * 32)
    assert query.transaction("02" * 32)["state"] == "unknown"


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, " " * 64, "ab" * 31 + "  "])
def test_what_is_no_transaction_id_is_said_so(settled, text):
    with pytest.raises(CodecError):
        settled[1].transaction(text)


def test_a_block_shows_who_signed_it_and_what_it_did(settled):
    chain, query, job_id = settled
    block = query.block(1)
    assert block["id"] == chain.store.header(2).parent.hex()
    assert sorted(block["signed_by"]) == [f"validator-{n}" for n in range(4)]
    assert [row["kind"] for row in block["transactions"]] == ["RegisterData", "SubmitJob"]
    assert block["header"]["state_root"] == chain.store.header(1).state_root.hex()
    assert query.block(0)["round"] is None
    last = query.block(chain.store.height)
    assert last["finalised"] == [{"job": job_id.hex(), "segment": 1}]
    with pytest.raises(NotFound):
        query.block(chain.store.height + 1)


def test_blocks_are_listed_downwards_and_never_more_than_there_are(settled):
    chain, query, _ = settled
    top = chain.store.height
    assert [row["height"] for row in query.blocks(limit=3)] == [top, top - 1, top - 2]
    assert [row["height"] for row in query.blocks(before=2)] == [1, 0]
    assert query.blocks(before=0) == []
    assert len(query.blocks(before=10**15, limit=10**9)) == top + 1


def test_a_job_is_named_by_any_beginning_that_no_other_shares():
    chain = make_chain()
    query = query_of(chain)
    ids = [chain.submit(JobSpec(name=f"job {n}")) for n in range(20)]
    chain.grow()
    texts = [identity.hex() for identity in ids]
    for text in texts:
        length = next(n for n in range(1, 65) if sum(t.startswith(text[:n]) for t in texts) == 1)
        assert query.job(text[:length])["id"] == text
        assert query.job(text[:length].upper())["id"] == text
    shared = next(t[0] for t in texts if sum(o.startswith(t[0]) for o in texts) > 1)
    with pytest.raises(NotFound, match="begin with"):
        query.job(shared)
    for text in ("", "zz", "0x", "٣", "g", "ab" * 40, "a b"):
        with pytest.raises(NotFound):
            query.job(text)


def test_jobs_are_listed_newest_first_and_by_state(settled):
    chain, _, job_id = settled
    query = query_of(chain)
    later = chain.submit(JobSpec(name="later"))
    chain.grow()
    assert [row["id"] for row in query.jobs()[0]] == [later.hex(), job_id.hex()]
    assert [row["name"] for row in query.jobs("accepted")[0]] == ["later"]  # its data is held
    assert query.jobs("running") == ([], "")
    with pytest.raises(CodecError, match="no job state"):
        query.jobs("dreaming")


def test_a_settled_job_says_how_much_was_re_run_by_whom_and_what_could_have_slipped(settled):
    chain, query, job_id = settled
    job = query.job(job_id.hex())
    union = 0
    for index in range(2):
        segment = chain.segment(job_id, index)
        offsets: set[int] = set()
        for attested in segment.attestations:
            drawn = segment_slice(chain.job(job_id), segment, attested.validator, attested.ticket)
            name = next(m.name for m in chain.genesis.members if m.key == attested.validator)
            assert job["segments"][index]["slices"][name] == len(drawn)
            offsets |= set(drawn)
        assert job["segments"][index]["chunks_rerun"] == len(offsets) < 300
        union += len(offsets)
    verified = job["verified"]
    assert (verified["rerun"], verified["chunks"], verified["of"]) == (union, 600, 4)
    assert verified["by"] == [f"validator-{n}" for n in range(4)]
    assert verified["miss_1_in_100"] == decimal_text(miss_probability(600, union, 6))
    model = chain.segment(job_id, 1).commit
    assert job["model"] == cid_text(model.end_content) and job["state_digest"] == model.end.hex()
    assert job["progress"] == {"done_chunks": 600, "total_chunks": 600}
    assert (job["metrics"]["correct"], job["metrics"]["total"]) == (15, 15)
    assert describe_job(job) == "settled"


def test_a_running_job_counts_committed_chunks_and_those_our_worker_has_behind_it():
    chain = make_chain(1, 1)
    worker = SimpleNamespace(progress={})
    query = query_of(chain, worker)
    job_id = chain.submit()
    chain.start(job_id)

    def done() -> int:
        assert query.jobs()[0][0]["progress"] == query.job(job_id.hex())["progress"]
        return query.job(job_id.hex())["progress"]["done_chunks"]

    assert done() == 0
    worker.progress[job_id, 0, 0] = 3
    assert done() == 3
    chain.commit_segment(job_id)
    assert done() == 4
    worker.progress[job_id, 1, 0] = 1
    assert done() == 5
    job = query.job(job_id.hex())
    assert [segment["state"] for segment in job["segments"]] == ["committed", "assigned"]
    assert job["segments"][0]["worker"] == "worker-0" and job["model"] is None
    with pytest.raises(NotFound, match="running"):
        query.model(job_id.hex())
    with pytest.raises(NotFound, match="running"):
        query.receipt(job_id)


def test_a_false_accusation_stands_with_its_job_and_its_member():
    chain = make_chain(4, 2)
    query = query_of(chain)
    job_id = chain.submit()
    chain.start(job_id)
    chain.commit_segment(job_id)
    chain.accuse_falsely("validator-2", job_id)
    (fault,) = query.job(job_id.hex())["faults"]
    assert (fault["offender"], fault["role"], fault["kind"]) == (
        "validator-2", "validator", "false-accusation",
    )  # fmt: skip
    assert (fault["segment"], fault["chunk"], fault["finders"]) == (0, 0, [])
    rows = {row["name"]: row for row in query.validators()}
    assert rows["validator-2"]["jailed"] and rows["validator-2"]["faults"] == [fault]
    assert not rows["validator-1"]["jailed"] and rows["validator-1"]["faults"] == []
    assert query.status()["validators"] == 3


def test_what_a_block_did_to_jobs_can_be_read_from_it_for_ever(settled):
    chain, query, job_id = settled
    told = [
        (event["what"], event["segment"])
        for height in range(chain.store.height + 1)
        for event in query.job_events(height)
        if event["job"] == job_id.hex()
    ]
    assert told == [
        ("submitted", None), ("committed", 0), ("final", 0), ("committed", 1), ("final", 1),
    ]  # fmt: skip


def test_a_score_is_shown_as_it_was_measured():
    accuracy = metrics_view(Metrics("accuracy", 29, 30, 0))
    assert (accuracy["correct"], accuracy["total"], accuracy["value"]) == (29, 30, "0.966667")
    error = Metrics("mean squared error", 0, 30, real_to_bits(0.125))
    assert metrics_view(error)["value"] == "0.125"


@pytest.mark.parametrize("error", [0x7FF8 << 48, 0x7FF0 << 48, -(0x4010 << 48)])
def test_a_score_that_is_no_number_is_shown_as_none(error):
    assert metrics_view(Metrics("mean squared error", 0, 30, error))["value"] == "nan"
    assert metrics_view(Metrics("accuracy", 0, 0, 0))["value"] == "nan"


def test_integers_that_others_would_round_are_text():
    numbers = {"a": MAX_JSON_INTEGER, "b": MAX_JSON_INTEGER + 1, "c": True, "d": [2**60]}
    assert to_json(numbers) == {
        "a": 2**53, "b": str(2**53 + 1), "c": True, "d": [str(2**60)],
    }  # fmt: skip


def test_a_receipt_is_of_the_head_and_decodes(settled):
    chain, query, job_id = settled
    receipt = query.receipt(job_id, has_files=False)
    assert receipt.header == chain.store.head and receipt.files == ()
    assert codec.decode(type(receipt), codec.encode(receipt)) == receipt
