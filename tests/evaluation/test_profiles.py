"""Losses level by level, against the loss over the whole law and against what is known at single levels."""

import jax
import numpy as np
import pytest

import innerloop as il
from innerloop.evaluation import evaluate, loss_by_sigma
from innerloop.predictors import OLS, AdaRR, ConstRR
from innerloop.tasks import LinearRegression

TASK = LinearRegression(2, 6, "uniform(0,2)")


@pytest.mark.parametrize("noise", ["uniform(0,2)", "categorical(0.5,2)"])
def test_the_average_over_the_law_is_the_adjusted_loss(noise, seed):
    """Gauss-Legendre with 8 nodes, or the levels themselves: 8192 sequences at each, 4 combined standard errors.

    The levels share their sequences, so their errors may add up in full.
    """
    task = LinearRegression(2, 6, noise)
    predictor = AdaRR(task)
    nodes, weights = task.noise.quadrature(8)
    profile = loss_by_sigma(predictor, task, sigmas=nodes, sequences=8192, seed=seed)
    average = float(weights @ profile["value"].to_numpy())
    error = float(weights @ profile["standard_error"].to_numpy())
    whole = evaluate(predictor, task, seed=seed, sequences=49_152).adjusted_loss
    assert abs(average - whole.value) < 4 * (error**2 + whole.standard_error**2) ** 0.5


def test_without_noise_least_squares_is_exact():
    """float64 rounding, squared; nothing else is exact there, and nothing is worse far outside."""
    profile = loss_by_sigma(OLS(TASK), TASK, sigmas=np.array([0.0, 1.0, 3.0]), sequences=512)
    exact, middle, outside = profile["value"]
    assert exact < 1e-20
    assert 0.01 < middle < outside


def test_a_constant_level_is_exact_at_that_level_only():
    profile = loss_by_sigma(ConstRR(TASK, sigma=1.0), TASK, sigmas=np.array([0.5, 1.0, 1.5]), sequences=512)
    below, at, above = profile["value"]
    assert at < 1e-20
    assert min(below, above) > 1e-3


def test_every_level_has_every_layer():
    model = il.LinearTransformer.diag(dim=2, layers=3, key=jax.random.key(0), context=6)
    profile = loss_by_sigma(model, TASK, sequences=512)
    assert profile.columns == [
        "sigma",
        "layer",
        "value",
        "standard_error",
        "unadjusted",
        "unadjusted_se",
    ]
    expected = [(sigma, layer) for sigma in np.linspace(0, 3, 29) for layer in range(4)]
    np.testing.assert_allclose(profile.select("sigma", "layer").to_numpy(), expected, rtol=1e-12)
    assert profile["value"].is_finite().all()
    assert (profile["standard_error"] > 0).all()


def test_before_the_first_layer_the_loss_is_that_of_the_ridge_weights():
    """w_hat = 0 there, whose loss is half E ||w_sigma||^2 = (dim - 2 oracle(sigma)) / 2: 1 at sigma = 0, 4 errors."""
    model = il.LinearTransformer.diag(dim=2, layers=1, key=jax.random.key(0), context=6)
    profile = loss_by_sigma(model, TASK, sigmas=np.array([0.0, 2.0]), sequences=4096)
    none = profile.filter(profile["layer"] == 0)
    assert abs(none["value"][0] - 1.0) < 4 * none["standard_error"][0]
    assert none["value"][1] < none["value"][0]


def test_predicting_zero_loses_half_the_dimension_at_every_level():
    """1/2 E ||0 - w||^2 = dim / 2 whatever sigma is; 4 standard errors. Without noise least squares loses nothing."""
    model = il.LinearTransformer.diag(dim=2, layers=1, key=jax.random.key(0), context=6)
    profile = loss_by_sigma(model, TASK, sigmas=np.array([0.0, 1.0, 3.0]), sequences=4096)
    none = profile.filter(profile["layer"] == 0)
    assert ((none["unadjusted"] - 1.0).abs() < 4 * none["unadjusted_se"]).all()
    assert loss_by_sigma(OLS(TASK), TASK, sigmas=np.array([0.0]), sequences=512)["unadjusted"][0] < 1e-20


def test_a_baseline_has_one_layer_and_the_same_seed_the_same_numbers():
    first, again, other = (loss_by_sigma(AdaRR(TASK), TASK, sequences=512, seed=seed) for seed in (4, 4, 5))
    assert first.equals(again)
    assert not first.equals(other)
    assert first["layer"].unique().to_list() == [0]


def test_the_standard_error_is_that_of_independent_sequences():
    """The spread of 64 means of 512 sequences, whose own error is 9 %, against the stated error: within 40 %."""
    level = np.array([1.0])
    means = [
        loss_by_sigma(AdaRR(TASK), TASK, sigmas=level, sequences=512, seed=s)["value"][0] for s in range(64)
    ]
    stated = loss_by_sigma(AdaRR(TASK), TASK, sigmas=level, sequences=16_384)["standard_error"][0] * 32**0.5
    assert np.std(means, ddof=1) == pytest.approx(stated, rel=0.4)


@pytest.mark.parametrize("sequences", [1, 0, True])
def test_sequences_must_be_enough_for_a_standard_error(sequences):
    with pytest.raises(ValueError, match=f"sequences must be a whole number >= 2, got {sequences!r}"):
        loss_by_sigma(OLS(TASK), TASK, sequences=sequences)


def test_an_unknown_precision(unchecked):
    with pytest.raises(ValueError, match="precision must be float32 or float64, got 'float16'"):
        loss_by_sigma(OLS(TASK), TASK, precision="float16")  # type: ignore[arg-type]


def test_a_model_of_another_dimension():
    model = il.LinearTransformer.diag(dim=3, layers=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="the model has dim 3, the data has dim 2"):
        loss_by_sigma(model, TASK, sequences=512)
