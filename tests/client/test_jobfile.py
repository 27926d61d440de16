"""Job files: what may stand in them, and how a mistake is answered."""

from decimal import Decimal
from pathlib import Path

import pytest

from mlchain.client.jobfile import (
    FIELDS,
    MODELS,
    QUANTITIES,
    RULES,
    JobFileError,
    load_job_file,
    parse_job_file,
)
from mlchain.client.training import prepare
from mlchain.ml_runtime import Dataset, Trainer, decode_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = """\
[job]
name = "heart"
fee = 120_000

[data]
source = "heart.csv"

[model]
kind = "mlp"
hidden = [16, 8]

[training]
rate = 0.01
batch = 8
steps = 100
chunk = 5
"""
PATH = Path("heart.toml")


def test_a_job_file_becomes_checked_values_and_documented_defaults():
    job = parse_job_file(GOOD, PATH)
    assert (job.name, job.fee, job.options, job.steps) == (
        "heart",
        120_000,
        {"hidden": (16, 8)},
        100,
    )
    assert job.rate == Decimal("0.01"), "decimals stay exact"
    assert (job.tier, job.optimiser, job.segments) == ("audited", "adam", 1)
    assert job.test_fraction == Decimal("0.2")
    assert job.seed == -1, "the chain draws"
    assert parse_job_file(GOOD + "seed = 0\n", PATH).seed == 0


@pytest.mark.parametrize("name", ["digits", "iris"])
def test_the_examples_are_valid(name):
    assert load_job_file(EXAMPLES / f"{name}.toml").name == name


MISTAKES = [
    # what stands there, instead of what, its line, and the rule in the answer
    ("steps = 100", "steps = 0", 15, "steps must be a whole number, 1 to"),
    ("steps = 100", "steps = 2.5", 15, "steps must be a whole number"),
    ("steps = 100", "steps = true", 15, "steps must be a whole number"),
    ("rate = 0.01", "rate = nan", 13, "rate must be a number"),
    ("rate = 0.01", "rate = 11", 13, "0.000001 to 10"),
    ("rate = 0.01", 'rate = "fast"', 13, "rate must be a number"),
    ('kind = "mlp"', 'kind = "rnn"', 9, 'one of "linear", "softmax", "mlp"'),
    ("hidden = [16, 8]", "hidden = [16, 0]", 10, "each 1 to 4096"),
    ("hidden = [16, 8]", "hidden = []", 10, "a list of 1 to 4"),
    ('kind = "mlp"\n', 'kind = "softmax"\n', 10, "hidden is for mlp, cnn"),
    ("hidden = [16, 8]", "hidden = [16]\npatch = 2", 11, "patch is for vit"),
    ('kind = "mlp"\nhidden = [16, 8]', 'kind = "ridge"', 12, "ridge learns by a rule of its own"),
    ('kind = "mlp"\nhidden', 'kind = "svm"\nalpha = 2\nhidden', 10, "alpha is for ridge, multi"),
    ("hidden = [16, 8]", "hidden = [16]\nmini_batch = 1", 11, "mini_batch must be true or false"),
    ("steps = 100", 'steps = 100\nschedule = "cosine"', 16, "schedule must be one of"),
    ("batch = 8", "btach = 8", 14, "keys of [training]: optimiser, rate"),
    ("[model]", "[modle]", 8, "tables: job, data, model, training"),
    ("chunk = 5", "chunk = 5\nepochs = 3", 17, "steps or epochs, not both"),
    ("chunk = 5", "chunk = 5\nmomentum = 0.5", 17, 'only the optimiser "momentum" has one'),
    ("chunk = 5", "chunk = 5\nseed = -1", 17, "seed must be a whole number, 0 to"),
    ('name = "heart"', 'name = ""', 2, "a text of 1 to 64 characters"),
    ('name = "heart"', 'name = "a\\nb"', 2, "a text of 1 to 64 characters"),
]


@pytest.mark.parametrize(("old", "new", "line", "rule"), MISTAKES)
def test_a_mistake_is_answered_with_its_line_and_what_may_stand_there(old, new, line, rule):
    text = GOOD.replace(old, new)
    with pytest.raises(JobFileError) as caught:
        parse_job_file(text, PATH)
    shown = text.splitlines()[line - 1]
    assert caught.value.message.startswith(f"heart.toml, line {line}: {shown}\n  ")
    assert rule in caught.value.message
    assert dict(caught.value.at) == {"file": "heart.toml", "line": line}


def test_a_key_left_out_is_named_with_what_may_stand_there():
    with pytest.raises(JobFileError, match=r"\[training\] batch missing") as caught:
        parse_job_file(GOOD.replace("batch = 8\n", ""), PATH)
    assert "1 to 4096" in caught.value.message
    assert dict(caught.value.at) == {"file": "heart.toml"}


def test_dotted_keys_are_found_too():
    text = 'data.source = "x.csv"\njob.name = ""\njob.fee = 1\n'
    with pytest.raises(JobFileError, match=r"line 2: job.name = "):
        parse_job_file(text, PATH)


def test_a_file_that_is_not_toml_says_where(tmp_path):
    file = tmp_path / "job.toml"
    file.write_text("[job\n")
    with pytest.raises(JobFileError, match="line 1"):
        load_job_file(file)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\xff\xfe", "not UTF-8"), (b"#" * (65 << 10), "larger than"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path, data, reason):
    file = tmp_path / "job.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(JobFileError, match=reason):
        load_job_file(file)


def test_every_key_is_explained_in_the_modules_text():
    import mlchain.client.jobfile as module

    for table, fields in FIELDS.items():
        assert f"[{table}]" in module.__doc__
        for key in fields:
            assert key in module.__doc__, f"{table}.{key}"


KINDS = {
    "cnn": "image = [8, 8, 1]\nchannels = [4]\nhidden = [8]\ndropout = 0.2",
    "vit": "patch = 4\nwidth = 8\nheads = 2\nlayers = 1",
    "transformer": "vocabulary = 17\nwidth = 8\nheads = 2\nlayers = 1",
    "mlp": "hidden = [8]\ndropout = 0.5",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_of_any_kind_is_a_job(kind):
    """Pixels of the digits are whole numbers, 0 to 16, so they serve as tokens as well."""
    text = GOOD.replace("heart.csv", "sklearn:digits").replace('"mlp"', f'"{kind}"')
    text = text.replace("hidden = [16, 8]", KINDS[kind])
    text += 'optimiser = "adamw"\nschedule = "linear"\nwarmup = 5\ndecay_steps = 100\n'
    job = prepare(parse_job_file(text, PATH))
    plan = decode_plan(job.plan)
    assert plan.model == kind
    assert "clock" in [s.name for s in plan.state]
    data = Dataset.decode(job.dataset)
    trainer = Trainer(job.task, data, b"\x07" * 32)
    state = trainer.run_chunk(0, trainer.initial_state())
    assert trainer.evaluate(state).total == job.test_rows


def test_the_kinds_are_the_models_and_say_truly_how_they_learn():
    from mlchain.ml_runtime.models import MODELS as MODULES
    from mlchain.ml_runtime.planner import learns_by_gradient

    assert set(MODULES) == {*MODELS, *RULES}
    assert [k for k in MODULES if not learns_by_gradient(MODULES[k])] == sorted(RULES)
    assert set(QUANTITIES) == {k for k, m in MODULES.items() if m.TARGETS == ("value",)}


BY_RULE = {
    "ridge": ("diabetes", "alpha = 0.5"),
    "perceptron": ("iris", ""),
    "nearest_centroid": ("wine", ""),
    "gaussian_nb": ("breast_cancer", ""),
    "multinomial_nb": ("digits", "alpha = 2"),
    "kmeans": ("iris", "clusters = 3\nmini_batch = true"),
}


@pytest.mark.parametrize("kind", RULES)
def test_a_model_with_a_rule_of_its_own_is_a_job_without_optimiser_and_rate(kind):
    source, more = BY_RULE[kind]
    text = GOOD.replace("heart.csv", f"sklearn:{source}").replace('"mlp"', f'"{kind}"')
    text = text.replace("hidden = [16, 8]", more).replace("rate = 0.01\n", "")
    job = prepare(parse_job_file(text, PATH))
    trainer = Trainer(job.task, Dataset.decode(job.dataset), b"\x07" * 32)
    state = trainer.run_chunk(0, trainer.initial_state())
    assert decode_plan(job.plan).model == kind
    assert trainer.evaluate(state).total == job.test_rows


@pytest.mark.parametrize("kind", ["svm", "logistic", "linear"])
def test_what_learns_by_gradient_needs_a_rate(kind):
    text = GOOD.replace('"mlp"', f'"{kind}"').replace("hidden = [16, 8]\n", "")
    assert parse_job_file(text, PATH).model == kind
    with pytest.raises(JobFileError, match=r"\[training\] rate missing"):
        parse_job_file(text.replace("rate = 0.01\n", ""), PATH)


def test_kmeans_needs_clusters():
    text = GOOD.replace('"mlp"\nhidden = [16, 8]', '"kmeans"').replace("rate = 0.01\n", "")
    with pytest.raises(JobFileError, match=r"\[model\] clusters missing"):
        parse_job_file(text, PATH)


@pytest.mark.parametrize(("target", "features"), [("", 3), ("c", 2)])
def test_rows_to_be_grouped_have_all_columns_but_the_one_named_and_no_labels(
    tmp_path, target, features
):
    rows = "".join(f"{i},{i * i},{i % 3}\n" for i in range(20))
    (tmp_path / "heart.csv").write_text("a,b,c\n" + rows)
    text = GOOD.replace('"mlp"\nhidden = [16, 8]', '"kmeans"\nclusters = 2')
    text = text.replace("rate = 0.01\n", "")
    if target:
        text = text.replace('"heart.csv"', f'"heart.csv"\ntarget = "{target}"')
    data = Dataset.decode(prepare(parse_job_file(text, tmp_path / "heart.toml")).dataset)
    assert (data.features, data.outputs, data.y.any()) == (features, 1, False)
