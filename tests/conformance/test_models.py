"""One suite for every model of the folder `models`: a new file is examined without new tests."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED
from ml_models import CALM, data_for, rows_for, task_for

from mlchain.errors import ConfigError
from mlchain.ml_runtime import (
    Oracle,
    ShardedBackend,
    Trainer,
    check_plan,
    decode_plan,
    make_plan,
    run,
)
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.optim import OPTIMISERS
from mlchain.ml_runtime.planner import SIZES, learns_by_gradient

BY_GRADIENT = [name for name, module in MODELS.items() if learns_by_gradient(module)]
CASES = [(name, target) for name, module in MODELS.items() for target in module.TARGETS]
every_model = pytest.mark.parametrize(("model", "target"), CASES)
every_way = pytest.mark.parametrize(
    ("model", "target", "optimiser"),
    [
        (model, target, optimiser)
        for model, target in CASES
        for optimiser in (OPTIMISERS if model in BY_GRADIENT else [""])
        if model not in CALM or optimiser == "adam"
    ],
)


@every_way
def test_it_learns(model, target, optimiser):
    data = data_for(target, 200, model)
    options = {}
    if optimiser:
        rates = {"momentum": "0.05", "sgd": "1" if target == "class" else "0.2"}
        rate = "0.01" if model in CALM else rates.get(optimiser, "0.05")
        options = {"optimiser": optimiser, "rate": rate}
    task = task_for(data, model, target, steps=300, chunk=300, **options)
    trainer = Trainer(task, data, SEED)
    before = trainer.evaluate(trainer.initial_state()).value
    after = trainer.evaluate(trainer.run_chunk(0, trainer.initial_state())).value
    if target == "class":
        assert after > max(before, 0.85)
    else:
        assert after < before / 5


@every_way
def test_it_trains_to_the_oracle_s_state(model, target, optimiser):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=3, chunk=3, optimiser=optimiser)
    assert run(task, data, SEED).digest() == run(task, data, SEED, backend=Oracle()).digest()


@every_way
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_give_the_same_bits(model, target, optimiser, shards):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=4, chunk=2, batch=11, optimiser=optimiser)
    split = Trainer(task, data, SEED, ShardedBackend(shards))
    whole = Trainer(task, data, SEED)
    state = split.run_chunk(0, split.initial_state())
    assert state.digest() == whole.run_chunk(0, whole.initial_state()).digest()


@every_model
def test_its_plan_is_canonical_and_costed(model, target):
    data = data_for(target, model=model)
    plan = decode_plan(task_for(data, model, target).plan)
    assert plan.model == model
    assert plan.target == target
    cost = check_plan(plan)
    assert cost.gas_per_step > cost.gas_predict_row > 0
    assert cost.state_bytes == sum(4 * int(np.prod(s.shape)) for s in plan.state)


@every_model
def test_a_row_alone_is_predicted_as_in_company(model, target):
    data = data_for(target, model=model)
    trainer = Trainer(task_for(data, model, target, steps=5, chunk=5), data, SEED)
    learned = trainer.model(trainer.run_chunk(0, trainer.initial_state()))
    rows = rows_for(model, 9)
    together = learned.scores(rows)
    assert np.array_equal(np.concatenate([learned.scores(row[None]) for row in rows]), together)


@every_model
def test_one_output_and_one_feature_are_enough(model, target):
    options = {"patch": 1} if model == "vit" else {}
    check_plan(make_plan(model, features=1, batch=1, **{SIZES[target]: 1}, **options))


@pytest.mark.parametrize("model", MODELS)
def test_it_says_what_it_is_and_what_it_learns(model):
    module = MODELS[model]
    assert module.__doc__
    rules = [module.build] if learns_by_gradient(module) else [module.fit, module.predict]
    assert all(rule.__doc__ for rule in rules)
    assert set(module.TARGETS) <= set(SIZES)
    for target in set(SIZES) - set(module.TARGETS):
        with pytest.raises(ConfigError, match="does not learn"):
            make_plan(model, features=2, **{SIZES[target]: 1})


@pytest.mark.parametrize("model", sorted(set(MODELS) - set(BY_GRADIENT)))
def test_a_rule_of_its_own_takes_no_optimiser_and_no_loss(model):
    sizes = {SIZES[MODELS[model].TARGETS[0]]: 2}
    for option in ({"optimiser": "sgd"}, {"loss": "hinge"}):
        with pytest.raises(ConfigError, match="a rule of its own"):
            make_plan(model, features=2, **sizes, **option)
