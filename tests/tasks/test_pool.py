"""Pools: a fixed set of sequences, sampled uniformly with replacement."""

import jax
import numpy as np
import pytest

from innerloop.tasks import LinearRegression, Pool

TASK = LinearRegression(2, 3, "fixed(0)")
CALM = LinearRegression(2, 3, "fixed(0.5)")


def test_prompts_are_whole_sequences_of_the_pool_in_equal_shares(key):
    pool = Pool(TASK, 5, seed=3)
    prompts = pool.sample_prompts(key, 4000)
    same = (np.asarray(prompts.query)[:, None] == np.asarray(pool.sequences.query)).all(-1)
    member = same.argmax(1)
    assert (same.sum(1) == 1).all()
    for name in ("x", "y", "label", "weights", "sigma"):
        stored = np.asarray(getattr(pool.sequences, name))
        np.testing.assert_array_equal(getattr(prompts, name), stored[member], err_msg=name)
    # Binomial counts of 4000 / 5, standard deviation 25.
    assert (np.abs(np.bincount(member, minlength=5) - 800) < 5 * 25.3).all()


def test_the_sequences_are_the_tasks(key):
    pool = Pool(TASK, 2000, seed=1)
    drawn = pool.sequences
    np.testing.assert_allclose(
        drawn.y, np.einsum("sni,si->sn", *map(np.asarray, (drawn.x, drawn.weights))), atol=1e-5
    )
    for array in (drawn.x, drawn.weights, drawn.query):
        # Second moments of a standard normal: standard error sqrt(2 / n).
        assert abs(float((np.asarray(array) ** 2).mean()) - 1) < 5 * np.sqrt(2 / array.size)
    moments = pool.sample_moments(key, 3)
    np.testing.assert_allclose(moments.S, pool.sample_prompts(key, 3).moments().S)


def test_seed_decides_and_size_only_adds():
    small, large = Pool(CALM, 4, seed=2), Pool(CALM, 9, seed=2)
    np.testing.assert_array_equal(small.sequences.y, large.sequences.y[:4])
    assert not np.isin(small.sequences.y, Pool(CALM, 4, seed=3).sequences.y).any()
    assert len(np.unique(np.asarray(large.sequences.y))) == 9 * 3


@pytest.mark.parametrize(
    ("size", "seed", "message"),
    [(0, 0, "size must be a whole number >= 1, got 0"), (3, -1, "seed must be a whole number >= 0, got -1")],
)
def test_bad_sizes_are_named(size, seed, message):
    with pytest.raises(ValueError, match=message):
        Pool(TASK, size, seed)


def test_bad_batches_are_named():
    with pytest.raises(ValueError, match="batch must be a whole number >= 1, got 0"):
        Pool(TASK, 2).sample_prompts(jax.random.key(0), 0)
