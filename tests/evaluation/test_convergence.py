"""Sequences to a share of the way, on curves whose answer is known."""

import numpy as np
import pytest

from innerloop.evaluation.convergence import samples_to

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
