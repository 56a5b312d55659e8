"""The standard error of a loss measured by sampled queries, against such measurements."""

import jax
import numpy as np
import pytest

import innerloop as il
from innerloop.evaluation import sampled_errors


@pytest.mark.parametrize("covariance", [None, np.diag([0.5, 2.0, 1.0])])
def test_it_is_the_spread_of_sampled_measurements(key, covariance):
    """200 000 prompts, so the standard deviation is known to about 1 %: heavy tails; tolerance 6 %."""
    task = il.LinearRegression(3, 6, "uniform(0,2)", covariance)
    predictors = {
        "model": il.LinearTransformer.diag(3, 2, 2, key=key),
        "constant": il.predictors.ConstRR(task, sigma=1.0),
    }
    found = sampled_errors(predictors, task, sequences=50_000, draws=100_000)
    with jax.enable_x64(True):
        prompts = task.sample_prompts(jax.random.key(5), 200_000)
        ridge = il.predictors.RidgeOracle(task).predict(prompts)
        clean = (prompts.weights * prompts.query).sum(-1)
        for name, predictor in predictors.items():
            loss = 0.5 * (predictor.predict(prompts) - clean) ** 2 - 0.5 * (ridge - clean) ** 2
            assert found[name] == pytest.approx(float(loss.std()) / 50_000**0.5, rel=0.06), name


def test_the_oracle_itself_has_none():
    task = il.LinearRegression(3, 6, "uniform(0,2)")
    found = sampled_errors({"oracle": il.predictors.RidgeOracle(task)}, task, sequences=100, draws=100)
    assert found == {"oracle": pytest.approx(0, abs=1e-12)}


@pytest.mark.parametrize("bad", [0, 1, True])
def test_too_few_sequences_are_an_error(bad):
    with pytest.raises(ValueError, match="sequences must be a whole number >= 2"):
        sampled_errors({}, il.LinearRegression(3, 6, "fixed(1)"), sequences=bad)
