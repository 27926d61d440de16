"""One suite for every model of the folder `models`: a new file is examined without new tests."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_task

from mlchain.errors import ConfigError
from mlchain.ml_runtime import Oracle, Trainer, check_plan, decode_plan, make_plan, run
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.optim import OPTIMISERS

CASES = [(name, target) for name, module in MODELS.items() for target in module.TARGETS]
every_model = pytest.mark.parametrize(("model", "target"), CASES)


def data_for(target: str, rows: int = 60):
    sizes = {"classes": 3} if target == "class" else {"classes": 0, "outputs": 2}
    return make_dataset(rows, **sizes)


@every_model
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_it_learns(model, target, optimiser):
    data = data_for(target, rows=200)
    rates = {"adam": "0.05", "momentum": "0.05", "sgd": "1" if target == "class" else "0.2"}
    task = make_task(data, model, steps=300, chunk=300, optimiser=optimiser, rate=rates[optimiser])
    trainer = Trainer(task, data, SEED)
    before = trainer.evaluate(trainer.initial_state()).value
    after = trainer.evaluate(trainer.run_chunk(0, trainer.initial_state())).value
    if target == "class":
        assert after > max(before, 0.85)
    else:
        assert after < before / 5


@every_model
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_it_trains_to_the_oracle_s_state(model, target, optimiser):
    data = data_for(target)
    task = make_task(data, model, steps=3, chunk=3, optimiser=optimiser)
    assert run(task, data, SEED).digest() == run(task, data, SEED, backend=Oracle()).digest()


@every_model
def test_its_plan_is_canonical_and_costed(model, target):
    data = data_for(target)
    plan = decode_plan(make_task(data, model).plan)
    assert plan.model == model
    assert plan.target == target
    cost = check_plan(plan)
    assert cost.gas_per_step > cost.gas_predict_row > 0
    assert cost.state_bytes == sum(4 * int(np.prod(s.shape)) for s in plan.state)


@every_model
def test_a_row_alone_is_predicted_as_in_company(model, target):
    data = data_for(target)
    trainer = Trainer(make_task(data, model, steps=5, chunk=5), data, SEED)
    learned = trainer.model(trainer.run_chunk(0, trainer.initial_state()))
    rows = np.random.default_rng(1).normal(size=(9, data.features))
    together = learned.scores(rows)
    assert np.array_equal(np.concatenate([learned.scores(row[None]) for row in rows]), together)


@every_model
def test_one_output_and_one_feature_are_enough(model, target):
    sizes = {"classes": 1} if target == "class" else {"outputs": 1}
    check_plan(make_plan(model, features=1, batch=1, **sizes))


@pytest.mark.parametrize("model", MODELS)
def test_it_says_what_it_is_and_what_it_learns(model):
    module = MODELS[model]
    assert module.__doc__
    assert module.build.__doc__
    assert set(module.TARGETS) <= {"class", "value"}
    if "value" not in module.TARGETS:
        with pytest.raises(ConfigError, match="does not learn"):
            make_plan(model, features=2, outputs=1)
