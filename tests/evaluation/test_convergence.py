"""Sequences to a share of the way, on curves whose answer is known."""

import numpy as np
import pytest

from innerloop.evaluation.convergence import ratio_of_means, samples_to, sequences_until

SEEN = np.array([0, 100, 200, 300, 400])


def test_known_curves():
    # Linear from 1 to 0: 90 % is covered at the last evaluation, 75 % exactly at the one before.
    linear = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
    assert samples_to(SEEN, linear, 0.9) == 400
    assert samples_to(SEEN, linear, 0.75) == 300
    # What counts is the best value, not the last, and the first crossing, not those after.
    assert samples_to(SEEN, np.array([2.0, 1.05, 1.5, 1.0, 3.0]), 0.9) == 100
    # Nothing but the way matters: neither the unit of the loss nor its floor.
    falling = np.exp(-SEEN / 80.0)
    assert samples_to(SEEN, falling) == samples_to(SEEN, 7 * falling + 3) == 200
    assert samples_to(SEEN, linear, 1.0) == 400


def test_runs_are_judged_one_by_one_and_one_that_never_fell_has_none():
    losses = np.array([[[1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 2.0, 3.0, 1.0]]])
    found = samples_to(SEEN, losses)
    assert found.shape == (1, 3)
    np.testing.assert_array_equal(found[0], [100, 400, np.nan])


def test_a_level_is_reached_on_the_line_between_evaluations():
    losses = np.array(
        [
            [1.0, 0.75, 0.5, 0.25, 0.0],  # at 0.6 after 160
            [1.0, 0.6, 0.5, 0.7, 0.4],  # at an evaluation; what comes after does not count
            [0.5, 0.7, 0.4, 0.3, 0.2],  # from the first on
            [1.0, 0.9, 0.8, 0.7, 0.61],  # never
            [1.0, 1.0, 1.0, 1.0, 0.6],  # at the last
        ]
    )
    np.testing.assert_allclose(sequences_until(SEEN, losses, 0.6), [160, 100, 0, np.nan, 400])
    assert sequences_until(SEEN, losses[0], 0.6) == pytest.approx(160)
    with pytest.raises(ValueError, match="must increase"):
        sequences_until(SEEN[::-1], losses, 0.6)


@pytest.mark.parametrize(
    ("seen", "losses", "fraction", "message"),
    [
        (SEEN, np.ones(4), 0.9, r"losses \(..., evaluations\), got \(5,\) and \(4,\)"),
        (SEEN[::-1], np.ones(5), 0.9, "must increase"),
        (SEEN, np.array([1.0, np.nan, 0, 0, 0]), 0.9, "losses must be finite"),
        (SEEN, np.ones(5), 0.0, "fraction must be more than 0 and at most 1, got 0.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(seen, losses, fraction, message):
    with pytest.raises(ValueError, match=message):
        samples_to(seen, losses, fraction)


def test_a_ratio_of_means_has_the_interval_of_the_delta_method(rng):
    """400 runs of each: relative standard errors 0.1 / 20 and 0.2 / 20 add in squares; 10 % of the width for the
    bootstrap's own error and the second order."""
    above, below = 3 + 0.3 * rng.standard_normal(400), 2 + 0.4 * rng.standard_normal(400)
    ratio, low, high = ratio_of_means(above, below)
    assert ratio == above.mean() / below.mean()
    relative = np.hypot(above.std() / above.mean(), below.std() / below.mean()) / 20
    np.testing.assert_allclose(
        [low, high], ratio * (1 + 1.96 * relative * np.array([-1, 1])), rtol=0.1 * relative * 4
    )


def test_the_ratio_of_runs_that_do_not_differ_is_sure():
    assert ratio_of_means(np.full(3, 6.0), np.full(5, 4.0)) == (1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="both must have runs, got 3 and 0"):
        ratio_of_means(np.ones(3), np.ones(0))
