"""How fast a loss falls: the sequences that training needs to cover a share of the way to its best value."""

import numpy as np
from jaxtyping import Float, Shaped


def samples_to(
    sequences_seen: Shaped[np.ndarray, "evaluations"],
    losses: Shaped[np.ndarray, "*runs evaluations"],
    fraction: float = 0.9,
) -> Float[np.ndarray, "*runs"]:
    """The sequences seen at the first evaluation where a loss has covered `fraction` of the way from its first to its best.

    Args:
        sequences_seen: at each evaluation, increasing, `(evaluations,)`.
        losses: of one run or of several, `(..., evaluations)`.
        fraction: q, more than 0 and at most 1; Goel et al. (2026) take 0.9.

    Returns:
        One number a run, `(...)`; NaN for a loss that never fell below its first value.

    Raises:
        ValueError: the shapes do not fit together, `sequences_seen` does not increase, a loss is not finite, or the
            fraction is out of range.
    """
    seen, losses = _checked(sequences_seen, losses)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be more than 0 and at most 1, got {fraction!r}")
    first, best = losses[..., :1], losses.min(-1, keepdims=True)
    # In this order the best value itself passes at fraction 1, whatever is rounded.
    covered = losses - best <= (1 - fraction) * (first - best)
    return np.where((best < first)[..., 0], seen[covered.argmax(-1)], np.nan)


def sequences_until(
    sequences_seen: Shaped[np.ndarray, "evaluations"],
    losses: Shaped[np.ndarray, "*runs evaluations"],
    level: float,
) -> Float[np.ndarray, "*runs"]:
    """The sequences seen when a loss first falls to `level`, between two evaluations on the line through both.

    Args:
        sequences_seen, losses: as for `samples_to`.
        level: in the unit of the losses.

    Returns:
        One number a run, `(...)`; NaN for a loss that stays above.

    Raises:
        ValueError: as for `samples_to`.
    """
    seen, losses = _checked(sequences_seen, losses)
    reached = losses <= level
    here = reached.argmax(-1)
    before = np.maximum(here - 1, 0)
    high, low = (np.take_along_axis(losses, at[..., None], -1)[..., 0] for at in (before, here))
    share = (high - level) / np.where(high > low, high - low, 1)
    found = np.where(here > 0, seen[before] + share * (seen[here] - seen[before]), seen[0])
    return np.where(reached.any(-1), found, np.nan)


def _checked(sequences_seen, losses) -> tuple[np.ndarray, np.ndarray]:
    seen, losses = np.asarray(sequences_seen, np.float64), np.asarray(losses, np.float64)
    if seen.ndim != 1 or not len(seen) or losses.shape[-1:] != seen.shape:
        raise ValueError(
            "sequences_seen must have shape (evaluations,) and losses (..., evaluations), "
            f"got {seen.shape} and {losses.shape}"
        )
    if not (np.diff(seen) > 0).all():
        raise ValueError("sequences_seen must increase from one evaluation to the next")
    if not np.isfinite(losses).all():
        raise ValueError("losses must be finite, got NaN or infinity")
    return seen, losses


def ratio_of_means(
    above: Shaped[np.ndarray, "runs"],
    below: Shaped[np.ndarray, "others"],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The mean of `above` over the mean of `below`, and a 95 % interval: quantiles of a bootstrap over the runs of each.

    Raises:
        ValueError: there are no runs.
    """
    if not len(above) or not len(below):
        raise ValueError(f"both must have runs, got {len(above)} and {len(below)}")
    rng = np.random.default_rng(seed)
    ratios = [
        rng.choice(above, len(above)).mean() / rng.choice(below, len(below)).mean() for _ in range(draws)
    ]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.mean(above) / np.mean(below)), float(low), float(high)
