"""Estimators that fit on a chain: equal bytes, and nothing is taken that is not proven."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from chain_node import ChainNode, serve_chain
from factories import JobSpec, nudge
from receipt_forger import receipt_of
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mlchain import codec
from mlchain.client.client import Client
from mlchain.client.estimators.receipts import ChainReceipt
from mlchain.client.jobfile import load_job_file
from mlchain.client.keystore import MIN_COST, create_key
from mlchain.client.submit import Terms, submit_job
from mlchain.client.training import prepare
from mlchain.errors import (
    ConfigError,
    Locked,
    NotFound,
    Rejected,
    Trap,
    Unreachable,
    VerificationFailed,
)
from mlchain.ledger.genesis import dump_genesis
from mlchain.sklearn import ChainClassifier, ChainKMeans, ChainRegressor
from mlchain.vm.families.jobs import JOBS

X, Y = load_iris(return_X_y=True)
QUICK = {"epochs": 30, "learning_rate": 0.1, "random_state": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def chain_node(folder):
    with serve_chain(folder, validators=4) as node:
        yield node


@pytest.fixture
def node(chain_node):
    yield chain_node
    chain_node.routes.clear()


@pytest.fixture
def place(node: ChainNode, folder):
    return {"network": node.url, "key": folder / "alice.json"}


@pytest.fixture(scope="module")
def fitted(chain_node: ChainNode, folder):
    return ChainClassifier(**QUICK, network=chain_node.url, key=folder / "alice.json").fit(X, Y)


# ---- scikit-learn -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # checks warn on purpose
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (ChainClassifier, 54),
        pytest.param(ChainRegressor, 51, marks=pytest.mark.slow),
        pytest.param(ChainKMeans, 50, marks=pytest.mark.slow),
    ],
)
def test_every_check_of_scikit_learn_passes_on_a_chain(tmp_path, kind, count):
    with serve_chain(tmp_path) as node:
        quick = {} if kind is ChainKMeans else {"epochs": 60, "learning_rate": 0.05}
        estimator = kind(network=node.url, key=tmp_path / "alice.json", chunk=20, **quick)
        results = check_estimator(estimator, on_skip=None)
        jobs = sum(1 for _ in JOBS.items(node.chain.chain.state()))
    assert Counter(r["status"] for r in results) == {"passed": count, "skipped": 1}
    assert jobs > 30, "they were trained on the chain"


def test_pipeline_and_search_work_on_a_chain(place):
    pipeline = make_pipeline(StandardScaler(), ChainClassifier(**QUICK, **place, chunk=10))
    found = GridSearchCV(pipeline, {"chainclassifier__epochs": [1, 40]}, cv=2).fit(X, Y)
    assert found.best_params_ == {"chainclassifier__epochs": 40}
    assert found.score(X, Y) > 0.9


# ---- exactness --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        ChainClassifier("mlp", hidden_layer_sizes=8, **QUICK),
        ChainRegressor(**QUICK, segments=3),
        ChainKMeans(3, random_state=5),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_chain_and_this_process_give_the_same_bytes(place, estimator):
    here = estimator.fit(X, Y)
    answers, digest = here.predict(X), here.state_digest_
    there = estimator.set_params(**place).fit(X, Y)
    assert isinstance(there.receipt_, ChainReceipt)
    assert there.state_digest_ == digest == there.receipt_.state_digest
    assert np.array_equal(there.predict(X), answers)


def test_without_a_seed_the_chain_draws_one_that_nobody_knew(place):
    free = {**QUICK, "random_state": None}
    digests = {ChainClassifier(**free, **place).fit(X, Y).state_digest_ for _ in range(2)}
    assert len(digests) == 2


# ---- the receipt ------------------------------------------------------------------------------


def test_re_running_all_slices_of_a_fit(fitted):
    found = fitted.receipt_.verify(slices="all")
    assert (found.equal, found.chunks, found.drawn) == (30, 30, 30)
    assert re.fullmatch(r"Verified\(30 of 30 slices equal, \d+\.\d s\)", repr(found))
    assert [check.name for check in found.checks][:3] == ["genesis", "validators", "certificate"]


def test_a_sample_says_how_much_it_could_have_missed(fitted):
    found = fitted.receipt_.verify(slices=3, seed="mine")
    assert (found.drawn, found.seed) == (3, "mine")
    assert found.equal == max(fitted.receipt_.verify(slices=3, seed="mine").equal, 3)
    assert found.miss(10) == "0.72" and "missed with p = " in repr(found)  # C(27,3) / C(30,3)


def test_a_receipt_survives_a_pickle_and_a_file(fitted, node, tmp_path):
    again = pickle.loads(pickle.dumps(fitted))
    assert again.receipt_.verify("all").equal == 30
    fitted.receipt_.save(tmp_path / "x.receipt")
    (tmp_path / "genesis.json").write_text(dump_genesis(node.chain.genesis))
    loaded = ChainReceipt.load(tmp_path / "x.receipt", tmp_path / "genesis.json")
    assert loaded.job_id == fitted.receipt_.job_id
    assert loaded.verify(1, genesis=tmp_path / "genesis.json").drawn == 1


def test_the_receipt_of_another_job_is_refused_though_it_is_as_well_proven(node, place):
    other = node.chain.run_job(JobSpec())
    data = codec.encode(receipt_of(node.chain, other))
    original = node._job
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "_job", lambda i, p: data if p == ["receipt"] else original(i, p))
        with pytest.raises(VerificationFailed, match="another id"):
            ChainClassifier(**QUICK, **place).fit(X, Y)
    ChainClassifier(**QUICK, **place).fit(X, Y)


def test_a_state_that_the_receipt_does_not_prove_is_refused(node, place):
    original = node._job

    def lie(identity, part):
        found = original(identity, part)
        return found[:-4] + bytes(4) if part == ["model"] else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "_job", lie)
        with pytest.raises(VerificationFailed, match="sent another state"):
            ChainClassifier(**QUICK, **place).fit(X, Y)


def test_a_forged_slice_that_all_validators_swore_to_is_found_and_shown(node):
    job = node.chain.run_job(JobSpec(), forge=lambda i, s: nudge(s) if i == 5 else s)
    genesis = dump_genesis(node.chain.genesis)
    receipt = ChainReceipt(codec.encode(receipt_of(node.chain, job)), genesis)
    assert "x" not in receipt.strip, "the sample says that it was equal"
    with pytest.raises(VerificationFailed, match="chunk 5 was committed as"):
        receipt.verify("all")
    assert receipt.strip[5] == "x" and repr(receipt).startswith("✗ differs")
    assert '<span class="d">x</span>' in receipt._repr_html_()


def test_a_damaged_receipt_and_another_genesis_are_refused(fitted, folder):
    receipt = fitted.receipt_
    with serve_chain(folder / "other") as other:
        theirs = dump_genesis(other.chain.genesis)
    with pytest.raises(VerificationFailed, match="genesis: "):
        ChainReceipt(receipt.data, theirs)
    (folder / "theirs.json").write_text(theirs)
    with pytest.raises(VerificationFailed, match="not yours"):
        receipt.verify(1, genesis=folder / "theirs.json")


# ---- for the eye ------------------------------------------------------------------------------


def test_a_card_shows_the_strip_and_loads_nothing(fitted):
    receipt = fitted.receipt_
    card = receipt._repr_html_()
    assert set(receipt.strip) <= {"█", "·"} and len(receipt.strip) == 30
    marks = "".join(re.findall(r'<span class="[edu]">([█·x]+)</span>', card))
    assert marks == receipt.strip
    assert f"{receipt.strip.count('█')} re-run" in card and "missed with p = " in card
    assert not re.search(r"https?:|src=|@import|url\(", card)
    assert "● verified" in card and "#0f7a6c" in card
    assert card in fitted._repr_mimebundle_()["text/html"]
    assert re.search(r"● verified   block #\d+   re-run", fitted._repr_mimebundle_()["text/plain"])


def test_what_others_chose_is_escaped_on_a_card(node):
    job = node.chain.run_job(JobSpec(name="<script>1</script>"))
    genesis = dump_genesis(node.chain.genesis)
    card = ChainReceipt(codec.encode(receipt_of(node.chain, job)), genesis)._repr_html_()
    assert "<script>" not in card and "&lt;script&gt;" in card


def test_curves_are_drawn_with_the_re_run_slices_shaded(fitted):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = fitted.receipt_.plot()
    left, right = figure.axes
    (loss,), (score,) = left.lines, right.lines
    assert loss.get_ydata()[0] > loss.get_ydata()[-1]
    assert score.get_ydata()[-1] == pytest.approx(fitted.score(X, Y))
    assert shaded_slices(left) == {n for n, mark in enumerate(fitted.receipt_.strip) if mark == "█"}
    assert shaded_slices(left) >= set(fitted.receipt_.attested) != set()
    matplotlib.pyplot.close(figure)


def test_nothing_is_shaded_before_it_was_re_run():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    receipt = ChainClassifier(**QUICK).fit(X, Y).receipt_
    assert shaded_slices(receipt.plot().axes[0]) == set()
    receipt.verify(2, seed="mine")
    seen = {n for n, mark in enumerate(receipt.strip) if mark == "█"}
    assert shaded_slices(receipt.plot().axes[0]) == seen and 2 <= len(seen) < 30
    matplotlib.pyplot.close("all")


def shaded_slices(axes) -> set[int]:
    """The slices, of one step each, that the shaded parts of a plot cover."""
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    return {n for start, stop in spans for n in range(round(start), round(stop))}


def test_a_fit_of_this_process_says_that_nobody_has_checked_it():
    receipt = ChainClassifier(**QUICK).fit(X, Y).receipt_
    assert repr(receipt).startswith("○ fitted in this process   checked by nobody else")
    assert receipt.strip == "·" * 30 and "○" in receipt._repr_html_()
    assert receipt.verify(2).drawn == 2
    assert repr(receipt.verify("all")).startswith("Verified(30 of 30 slices equal")
    assert receipt.strip == "█" * 30


def test_a_fit_of_this_process_that_was_tampered_with_does_not_verify():
    receipt = ChainClassifier(**QUICK).fit(X, Y).receipt_
    done = receipt._trained
    leaves = (*done.leaves[:7], bytes(32), *done.leaves[8:])
    object.__setattr__(done, "leaves", leaves)
    with pytest.raises(VerificationFailed, match="slice 7"):
        receipt.verify("all")
    assert receipt.strip == "█" * 7 + "x" + "·" * 22


# ---- what goes wrong --------------------------------------------------------------------------


def test_training_that_diverges_is_a_trap_there_as_here(place):
    wild = {"optimiser": "sgd", "learning_rate": 1e300, "random_state": 0, "epochs": 5}
    for where in ({}, place):
        with pytest.raises(Trap, match="left the exact range") as caught:
            ChainClassifier("mlp", **wild, **where).fit(X, Y)
        assert "learning_rate" in caught.value.hint


def test_a_key_is_never_asked_for_and_never_a_parameter(node, folder):
    alice = node.chain.alice
    create_key(folder / "sealed.json", alice, "horse staple", cost=MIN_COST)
    sealed = {"network": node.url, "key": folder / "sealed.json"}
    with pytest.raises(Locked, match="nobody to ask"):
        ChainClassifier(**QUICK, **sealed).fit(X, Y)
    (folder / "password").write_text("horse staple\n")
    ChainClassifier(**QUICK, **sealed, password_file=folder / "password").fit(X, Y)
    with pytest.raises(NotFound):
        ChainClassifier(**QUICK, network=node.url, key=folder / "nobody.json").fit(X, Y)


def test_what_the_chain_refuses_is_said_in_its_words(place):
    with pytest.raises(Rejected, match="fee 1 is below"):
        ChainClassifier("mlp", **QUICK, **place, fee=1).fit(X, Y)


def test_nobody_at_the_address_is_unreachable(folder):
    with pytest.raises(Unreachable):
        ChainClassifier(network="http://127.0.0.1:9", key=folder / "alice.json").fit(X, Y)


@pytest.mark.parametrize("slices", ["some", -1, 2.5, True])
def test_a_number_of_slices_that_cannot_be_is_refused(fitted, slices):
    with pytest.raises(ConfigError, match="slices="):
        fitted.receipt_.verify(slices)


# ---- jobs of others ---------------------------------------------------------------------------


def test_a_job_becomes_the_estimator_that_fitted_it(fitted, node):
    job = fitted.receipt_.job_id
    again = ChainClassifier.from_job(job, network=node.url, source=(X, Y))
    assert again.state_digest_ == fitted.state_digest_ and again.model == "softmax"
    assert np.array_equal(again.model_.scores(X), fitted.model_.scores(X))
    assert again.receipt_.verify("all").equal == 30


def test_rows_that_the_job_was_not_made_from_are_refused(fitted, node):
    with pytest.raises(VerificationFailed, match="these rows make the dataset"):
        ChainClassifier.from_job(
            fitted.receipt_.job_id, network=node.url, source=(X[::-1], Y[::-1])
        )


def test_a_job_of_the_command_line_reads_raw_features_through_its_file(node, place, tmp_path):
    text = (Path(__file__).parents[2] / "examples" / "iris.toml").read_text()
    (tmp_path / "iris.toml").write_text(text)
    job_file = load_job_file(tmp_path / "iris.toml")
    job, key = prepare(job_file), node.chain.alice
    with Client(node.url) as client:
        terms = Terms("iris", job_file.tier, job_file.fee)
        identity = submit_job(client, job, client.put_data(job.dataset), terms, key)
        client.wait(identity)
    found = ChainClassifier.from_job(identity, network=node.url, source=tmp_path / "iris.toml")
    assert list(found.classes_) == ["setosa", "versicolor", "virginica"]
    names = found.classes_[Y]
    assert found.score(X, names) > 0.9
    blind = ChainClassifier.from_job(identity, network=node.url)
    scaled = (X - job.scaling.shift) / job.scaling.divisor
    assert np.array_equal(blind.model_.scores(scaled), found.model_.scores(X))
    with pytest.raises(ConfigError, match="learned a class, not a value"):
        ChainRegressor.from_job(identity, network=node.url)


@pytest.mark.parametrize("kind", [ChainRegressor, ChainKMeans])
def test_quantities_and_groups_come_back_too(place, kind):
    quick = {} if kind is ChainKMeans else {"epochs": 5}
    made = kind(**quick, **place, random_state=1).fit(X, Y)
    job, url = made.receipt_.job_id, place["network"]
    again = kind.from_job(job, network=url, source=(X, Y))
    assert np.array_equal(again.predict(X), made.predict(X))
    if kind is ChainKMeans:
        assert np.array_equal(again.cluster_centers_, made.cluster_centers_)
        assert again.n_clusters == 8
