"""The density of eigenvalues: against moments in closed form, chi-square and drawn matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from innerloop.tasks import wishart_eigenvalues
from innerloop.tasks.wishart import LARGEST_RANK


def moments(d: int, n: int) -> list[float]:
    """E of the rank, and of tr W, tr W^2 and tr W^3, of a real Wishart matrix W (Letac and Massam 2004)."""
    cubed = n**2 + d**2 + 3 * n * d + 3 * n + 3 * d + 4
    return [min(d, n), d * n, d * n * (n + d + 1), d * n * cubed]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(dim=st.integers(1, 40), context=st.integers(1, 200))
def test_its_moments_are_those_of_the_wishart_law(dim, context):
    """Even and odd ranks, more features than examples and fewer; to rounding."""
    values, counts = wishart_eigenvalues(dim, context)
    found = [counts @ (context * values) ** power for power in range(4)]
    np.testing.assert_allclose(found, moments(dim, context), rtol=1e-9)
    assert (np.diff(values) > 0).all() and (counts >= 0).all()


@pytest.mark.parametrize(
    ("dim", "context"), [(10, 20), (LARGEST_RANK, LARGEST_RANK), (LARGEST_RANK, 3000), (7, 100_000)]
)
def test_nor_does_size_take_precision(dim, context):
    values, counts = wishart_eigenvalues(dim, context)
    found = [counts @ (context * values) ** power for power in range(4)]
    np.testing.assert_allclose(found, moments(dim, context), rtol=1e-9)


@pytest.mark.parametrize("context", [1, 2, 20])
def test_of_one_feature_it_is_chi_square_far_into_the_tail(context):
    values, counts = wishart_eigenvalues(1, context)
    for share in (0.5, 1e-3, 1e-6, 1e-9):
        value = chi2.isf(share, context) / context
        assert counts[values > value].sum() == pytest.approx(
            share, rel=0.1
        )  # between two points of the quadrature
    largest = wishart_eigenvalues(1, context, tail=1e-6).values[-1]
    assert largest == pytest.approx(chi2.isf(1e-6, context) / context, rel=1e-3)
    smooth = counts @ np.exp(-values * context / 10)
    assert smooth == pytest.approx(
        (1 + 2 / 10) ** (-context / 2), rel=1e-12
    )  # the moment-generating function


@pytest.mark.parametrize(("dim", "context"), [(3, 5), (5, 5), (6, 4), (10, 20)])
def test_drawn_matrices_have_as_many_eigenvalues_beyond_any(dim, context, rng):
    """20 000 of them; five standard errors of the count, and what lies between two points of the quadrature."""
    drawn = rng.normal(size=(20_000, min(dim, context), max(dim, context)))
    eigenvalues = np.linalg.eigvalsh(drawn @ drawn.swapaxes(1, 2)) / context
    exact = wishart_eigenvalues(dim, context)
    for value in np.quantile(eigenvalues, [0.01, 0.1, 0.5, 0.9, 0.99, 0.9999]):
        beyond = (eigenvalues > value).sum(1)
        nearest = exact.counts[np.searchsorted(exact.values, value)]
        expected = exact.counts[exact.values > value].sum()
        assert abs(beyond.mean() - expected) < 5 * beyond.std() / np.sqrt(len(beyond)) + nearest


@pytest.mark.parametrize(("dim", "context"), [(10, 20), (11, 20), (20, 30)])
def test_far_out_it_is_as_the_mean_of_a_determinant_says(dim, context):
    """Beyond nearly all other eigenvalues one at x meets the weight x^((n - d - 1) / 2) e^(-x / 2) times E det(x - W') over
    W' of one feature less: sum_k (-1)^k C(d - 1, k) (n - 1)! / (n - 1 - k)! x^(d - 1 - k). From where 10^-8 lie beyond."""
    values, counts = wishart_eigenvalues(dim, context)
    beyond = counts[::-1].cumsum()[::-1]
    far = (beyond < 1e-8) & (beyond > 1e-20)
    x, n, d = values[far] * context, context, dim
    signs = [(-1) ** k * math.comb(d - 1, k) * math.perm(n - 1, k) for k in range(d)]
    expected = x ** ((n - d - 1) / 2) * np.exp(-x / 2) * np.polyval(np.array(signs, float), x)
    ratio = (
        counts[far] / expected / np.sqrt(x)
    )  # times the weights of a quadrature over roots, the same in every panel
    assert len(ratio) > 48
    np.testing.assert_allclose(ratio[24:], ratio[:-24], rtol=1e-6)


@pytest.mark.parametrize(("dim", "context"), [(10, 20), (5, 5), (1, 5), (20, 10)])
@pytest.mark.parametrize("tail", [1e-8, 1e-6, 1e-3])
def test_tails_are_left_out_at_either_end(dim, context, tail):
    """As many as asked for, and what is left is still integrated to rounding."""
    everywhere, inner = wishart_eigenvalues(dim, context), wishart_eigenvalues(dim, context, tail=tail)
    assert everywhere.counts.sum() - inner.counts.sum() == pytest.approx(2 * tail, rel=0.02, abs=1e-13)
    within = (everywhere.values > inner.values[0]) & (everywhere.values < inner.values[-1])
    above = everywhere.counts[everywhere.values > inner.values[-1]].sum()
    assert above == pytest.approx(tail, rel=0.25)  # between two points of the quadrature
    assert inner.counts @ inner.values == pytest.approx(
        (everywhere.counts @ everywhere.values), rel=20 * tail
    )
    assert within.sum() > 300


def test_all_callers_share_what_none_can_write_to():
    values, counts = wishart_eigenvalues(4, 8)
    assert wishart_eigenvalues(4, 8).values is values
    for each in (values, counts):
        with pytest.raises(ValueError, match="read-only"):
            each[0] = 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((300, 201), "smaller of dim and context must be at most 200, got 201"),
        ((0, 5), "dim and context must be at least 1, got 0 and 5"),
        ((3, -1), "dim and context must be at least 1, got 3 and -1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        wishart_eigenvalues(*arguments)


@pytest.mark.parametrize("tail", [-1e-6, 0.1, float("nan")])
def test_a_tail_that_is_none_is_refused(tail):
    with pytest.raises(ValueError, match="tail must be at least 0 and below 0.1"):
        wishart_eigenvalues(4, 8, tail=tail)
