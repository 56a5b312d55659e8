"""Theorems 5.1 and 5.2: layer counts and limits against scalar recursions and closed forms, and wrong weights that fail."""

import math

import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.probe import (
    check_linear_solver,
    check_two_levels,
    gd_plus_plus_solver,
    layers_to_solve,
    two_level_limit,
    two_level_ridge,
)

SMALL: dict = {"dim": 3, "contexts": (1000, 100_000), "sequences": 4096}


def scalar_layers(condition: float, error: float) -> int:
    """Layers of the smallest eigenvalue alone: t' = t (3 - t)^2 / 4 from 1 / condition to 1 - error, and the step.

    In delta = 1 - t, which float64 resolves near the end.
    """
    delta, layers = 1 - 1 / condition, 1
    while delta > error:
        delta, layers = (3 * delta**2 + delta**3) / 4, layers + 1
    return layers


def solver(factor: float):
    """The construction of Theorem 5.1 with another number than 1/3."""

    def build(dim: int, layers: int) -> LinearTransformer:
        flows, nu = np.zeros((layers, 2, 2)), 1.0
        for layer in range(layers - 1):
            flows[layer, 0, 0] = -factor / nu
            nu *= (1 - factor) ** 2
        flows[-1, 1, 0] = -1 / nu
        return LinearTransformer.from_flows(flows, dim)

    return build


@pytest.fixture(scope="module")
def solved():
    return check_linear_solver(dim=6)


def test_gd_plus_plus_solves_in_the_layers_claimed(solved):
    assert solved.verdict and solved.measured <= 1
    assert solved.data.height == 24
    assert (solved.data["reached"] <= solved.data["error"]).all()


def test_the_layers_are_those_of_the_smallest_eigenvalue(solved):
    """Exactly, though the models run on 6 x 6 matrices in a random basis, for all weights at once."""
    for row in solved.data.iter_rows(named=True):
        assert row["layers"] == scalar_layers(row["condition"], row["error"])


def test_layers_grow_like_the_logarithm_and_the_iterated_logarithm(solved):
    """A factor 1000 in kappa costs log(1000) / log(9/4) = 8.5 layers, so 8 or 9; from eps = 1e-1 to 1e-8 is 3 squarings."""
    layers = {(row["condition"], row["error"]): row["layers"] for row in solved.data.iter_rows(named=True)}
    for eps in (1e-1, 1e-2, 1e-4, 1e-8):
        assert layers[1e6, eps] - layers[1e3, eps] in (8, 9)
    for kappa in (1e2, 1e4, 1e6):
        assert layers[kappa, 1e-8] - layers[kappa, 1e-1] == 3


def test_the_constants_of_the_bound_hold_far_beyond_what_is_run():
    """Condition numbers from 1 to 1e15 and errors down to 1e-300, by the scalar recursion."""
    for kappa in np.geomspace(1, 1e15, 31):
        for eps in (0.9, 0.5, 0.3, 1e-1, 1e-3, 1e-10, 1e-100, 1e-300):
            assert scalar_layers(kappa, eps) <= layers_to_solve(kappa, eps)


@pytest.mark.parametrize("factor", [1 / 6, 0.32, 0.35, 1 / 2])
def test_another_factor_than_a_third_is_too_slow_or_wrong(factor):
    """Near 1 the eigenvalues then converge linearly, or not at all: the error is no longer squared by a layer."""
    found = check_linear_solver(build=solver(factor), dim=6)
    assert not found.verdict and found.measured == math.inf
    assert check_linear_solver(build=solver(1 / 3), dim=6).verdict


def test_plain_gradient_descent_is_too_slow():
    def descent(dim, layers):
        flows = np.zeros((layers, 2, 2))
        flows[:, 1, 0] = -1
        return LinearTransformer.from_flows(flows, dim)

    assert not check_linear_solver(build=descent, dim=6, conditions=[100], errors=[0.1]).verdict


def test_the_largest_eigenvalue_only_sets_the_scale():
    """The flows of a Sigma that is 7 times larger are 7 times smaller: relative 1e-6 in float32."""
    one, seven = (np.asarray(gd_plus_plus_solver(3, 4, largest=nu).flows()) for nu in (1.0, 7.0))
    np.testing.assert_allclose(7 * seven, one, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conditions": [0.5]}, "a condition must be a finite number >= 1, got 0.5"),
        ({"errors": [0.0]}, "an error must be a finite number > 0 and < 1, got 0.0"),
        ({"errors": []}, "conditions and errors must not be empty"),
        (
            {"conditions": [1e6], "errors": [1e-12]},
            "errors must be at least 1e-14 times the condition number",
        ),
        ({"dim": 1}, "dim must be a whole number >= 2, got 1"),
    ],
)
def test_grids_that_cannot_be_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_linear_solver(**arguments)


@pytest.mark.parametrize(("low", "high"), [(1.0, 3.0), (0.5, 2.0), (0.0, 1.0)])
def test_the_weights_interpolate_ridge_at_both_levels(low, high):
    """Step eta, then 1 + n w_yy sigma^2: together 1 / (1 + sigma^2), to float32."""
    flows = np.asarray(two_level_ridge(4, 1000, low, high).flows(), np.float64)
    assert np.count_nonzero(flows) == 2
    eta, c = -flows[0, 1, 0], 1000 * flows[1, 1, 1]
    for variance in (low**2, high**2):
        assert eta * (1 + c * variance) == pytest.approx(1 / (1 + variance), rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.0, 3.0), (0.5, 2.0)])
def test_two_layers_reach_ridge_at_the_rate_of_the_closed_form(low, high, seed):
    """4096 sequences: the loss at n = 10^5 is the limit / n within 4 standard errors, of at most 5 per cent each."""
    found = check_two_levels(low=low, high=high, **SMALL, seed=seed)
    assert found.verdict
    assert found.measured == pytest.approx(-1, abs=0.05)
    last = found.data.row(-1, named=True)
    assert last["limit"] == two_level_limit(3, low, high) / 100_000
    assert abs(last["value"] - last["limit"]) < 4 * last["standard_error"] < 0.2 * last["limit"]


@pytest.mark.parametrize("entry", [(0, 1, 0), (1, 1, 1)])
def test_weights_that_are_one_per_cent_off_do_not_reach_ridge(entry):
    def build(dim, context, low, high):
        flows = np.array(two_level_ridge(dim, context, low, high).flows())
        flows[entry] *= 1.01
        return LinearTransformer.from_flows(flows, dim)

    found = check_two_levels(build=build, **{**SMALL, "contexts": (10_000, 1_000_000)})
    assert not found.verdict and found.measured > -0.9


def test_one_layer_cannot_tell_the_levels_apart():
    """Without w_yy the best single step is off by a constant at both levels: the loss stays."""

    def build(dim, context, low, high):
        flows = np.array(two_level_ridge(dim, context, low, high).flows())
        flows[0, 1, 0] = -(1 / (1 + low**2) + 1 / (1 + high**2)) / 2
        flows[1] = 0
        return LinearTransformer.from_flows(flows, dim)

    found = check_two_levels(build=build, **SMALL)
    assert not found.verdict and abs(found.measured) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contexts": (100,)}, r"contexts must be at least two whole numbers, rising, got \[100\]"),
        ({"contexts": (100, 10)}, "contexts must be at least two whole numbers, rising"),
        ({"low": 3.0, "high": 1.0}, "high must be a finite number > 3, got 1.0"),
        ({"sequences": 1}, "sequences must be a whole number >= 2, got 1"),
    ],
)
def test_contexts_and_levels_that_cannot_be_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_two_levels(**arguments)
