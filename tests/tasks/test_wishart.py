"""The density of eigenvalues: against moments in closed form, chi-square and drawn matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from innerloop.tasks import wishart_eigenvalues
from innerloop.tasks.wishart import MOST


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


@pytest.mark.parametrize(("dim", "context"), [(10, 20), (MOST, MOST), (MOST, 3000), (7, 100_000)])
def test_nor_does_size_take_precision(dim, context):
    values, counts = wishart_eigenvalues(dim, context)
    found = [counts @ (context * values) ** power for power in range(4)]
    np.testing.assert_allclose(found, moments(dim, context), rtol=1e-9)


@pytest.mark.parametrize("context", [1, 2, 20])
def test_of_one_feature_it_is_chi_square_far_into_the_tail(context):
    values, counts = wishart_eigenvalues(1, context)
    for share in (0.5, 1e-3, 1e-6, 1e-9):
        value = chi2.isf(share, context) / context
        inside = counts[values > value].sum()
        assert wishart_eigenvalues(1, context).beyond(value) == inside
        assert inside == pytest.approx(share, rel=0.1)  # between two points of the quadrature
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
        assert abs(beyond.mean() - exact.beyond(value)) < 5 * beyond.std() / np.sqrt(len(beyond)) + nearest


@pytest.mark.parametrize("tail", [0.0, 1e-6, 1e-3])
def test_tails_are_left_out_at_either_end(tail):
    everywhere, inner = (wishart_eigenvalues(10, 20), wishart_eigenvalues(10, 20).inner(tail))
    outside = [
        everywhere.counts[everywhere.values < inner.values[0]].sum(),
        everywhere.beyond(inner.values[-1]),
    ]
    assert all(share <= tail for share in outside)
    for share, point in zip(outside, (inner.counts[0], inner.counts[-1]), strict=True):
        assert share + point > tail


def test_what_is_too_large_is_refused():
    with pytest.raises(ValueError, match="smaller of dim and context must be at most 128, got 129"):
        wishart_eigenvalues(200, 129)
