"""Prompts and moments: what they hold, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.types import Moments, Prompt


def arrays(rng, batch: tuple[int, ...] = (), n: int = 4, dim: int = 3) -> dict[str, np.ndarray]:
    return {
        "x": rng.normal(size=(*batch, n, dim)),
        "y": rng.normal(size=(*batch, n)),
        "query": rng.normal(size=(*batch, dim)),
    }


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_moments_are_sums_of_outer_products(x64, rng, batch):
    """To 1e-13, against a loop over examples; blocks are where their names say."""
    given = arrays(rng, batch)
    found = Prompt(**{name: jnp.asarray(value) for name, value in given.items()}).moments()
    tokens = np.concatenate([given["x"], given["y"][..., None]], -1).reshape(-1, 4, 4)
    expected = np.stack([sum(np.outer(e, e) for e in context) for context in tokens]).reshape(*batch, 4, 4)
    np.testing.assert_allclose(found.S, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(found.gram, found.S[..., :3, :3])
    np.testing.assert_array_equal(found.correlation, found.S[..., :3, 3])
    np.testing.assert_array_equal(found.label_energy, found.S[..., 3, 3])
    assert (found.n, found.dim) == (4, 3)


def changed(rng, **changes):
    return {name: jnp.asarray(value) for name, value in (arrays(rng) | changes).items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, r"x must have shape \(..., n, dim\) with n and dim >= 1"),
        ({"x": np.zeros(3)}, r"x must have shape"),
        ({"y": np.zeros(5)}, r"y must have shape .* = \(4,\) .* got \(5,\)"),
        ({"query": np.zeros(2)}, r"query must have shape .* = \(3,\) .* got \(2,\)"),
        ({"x": np.full((4, 3), np.nan)}, "x must be finite"),
        ({"y": np.full(4, np.inf)}, "y must be finite"),
        ({"query": np.full(3, np.nan)}, "query must be finite"),
    ],
)
def test_a_prompt_that_does_not_fit_together_is_refused(unchecked, rng, changes, message):
    with pytest.raises(ValueError, match=message):
        Prompt(**changed(rng, **changes))


@pytest.mark.parametrize(
    ("S", "n", "message"),
    [
        (np.eye(3), 0, r"n, the number of examples, must be a whole number >= 1, got 0"),
        (np.eye(3), -2, r"got -2"),
        (np.eye(3), 2.5, r"got 2.5"),
        (np.eye(3), True, r"got True"),
        (np.zeros((3, 4)), 5, r"S must have shape \(..., D, D\)"),
        (np.zeros(3), 5, r"S must have shape"),
        (np.ones((1, 1)), 5, r"D = dim \+ 1 >= 2"),
        (np.diag([1.0, np.nan, 1.0]), 5, "S must be finite"),
    ],
)
def test_moments_that_cannot_be_are_refused(unchecked, S, n, message):
    with pytest.raises(ValueError, match=message):
        Moments(S=jnp.asarray(S), n=n)


def test_moments_can_be_made_under_a_trace(x64):
    """Where values are not known yet, only shapes are checked."""
    assert jax.jit(lambda S: Moments(S=S, n=3).gram.sum())(jnp.eye(3)) == 2


@pytest.mark.parametrize("kind", [list, np.array, jnp.array])
def test_lists_and_whole_numbers_are_as_good_as_arrays(kind):
    x, y, query = [[1, 2], [3, 4]], [5, 6], [0, 1]
    found = Prompt(x=kind(x), y=kind(y), query=kind(query))
    assert {array.dtype for array in (found.x, found.y, found.query)} == {jnp.zeros(()).dtype}
    moments = found.moments()
    np.testing.assert_array_equal(moments.S, [[10, 14, 23], [14, 20, 34], [23, 34, 61]])
    again = Moments(S=kind(np.asarray(moments.S, int).tolist()), n=2)
    np.testing.assert_array_equal(again.S, moments.S)
    assert again.S.dtype == moments.S.dtype
