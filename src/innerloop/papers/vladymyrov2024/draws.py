"""What single sequences do to a mean: over draws as large as those that the published numbers are means of."""

import numpy as np

from innerloop.evaluation import Estimate
from innerloop.evaluation.losses import CHUNK, draw_losses
from innerloop.papers.vladymyrov2024.study import Budget
from innerloop.tasks import LinearRegression

PUBLISHED_DRAW = 100_000  # sequences that each published number was evaluated on
_QUANTILES = {"median": 0.5, "q90": 0.9, "q99": 0.99, "q999": 0.999}
_TWO_BELOW = 0.0228  # the share of a normal law that is more than two standard deviations below its median


def further_draws(predictors: dict, task: LinearRegression, budget: Budget) -> dict[str, np.ndarray]:
    """Means of draws as large as the paper's, of sequences beyond those of the table: for means that one sequence sets."""
    chunks = -(-PUBLISHED_DRAW // CHUNK)
    first = -(-budget.sequences // CHUNK)
    means = {name: [] for name in predictors}
    for draw in range(budget.further_draws if predictors else 0):
        begin = first + draw * chunks
        drawn = draw_losses(predictors, task, range(begin, begin + chunks), per_layer=False)
        for name, regret in drawn.regret.items():
            means[name].append((regret[:, -1] + drawn.spread)[:PUBLISHED_DRAW].mean())
    return {name: np.array(each) for name, each in means.items() if each}


def tail(adjusted: np.ndarray, further: np.ndarray) -> dict[str, float | int]:
    """Quantiles over sequences, and the means of draws as large as those of the paper, all of it if there is no second.

    With `further` draws, the mean and its error are of all draws.
    """
    draws = means_of_draws(adjusted, further)
    found = {}
    if len(further):
        over = Estimate.of(draws)
        found = {
            "value": over.value,
            "standard_error": over.standard_error,
            "sequences": len(draws) * PUBLISHED_DRAW,
        }
    # "lower", since "linear" takes a mean with an infinite neighbour
    quantiles = np.quantile(adjusted, list(_QUANTILES.values()), method="lower")
    found |= dict(zip(_QUANTILES, quantiles.tolist(), strict=True))
    return found | {
        "draws": len(draws),
        "draws_median": float(np.median(draws)),
        "draws_least": float(draws.min()),
        "draws_greatest": float(draws.max()),
    }


def means_of_draws(adjusted: np.ndarray, further: np.ndarray) -> np.ndarray:
    """Of the table's own sequences in parts as large as the paper's draws, and the `further` ones."""
    count = max(1, len(adjusted) // PUBLISHED_DRAW)
    return np.concatenate([[part.mean() for part in np.array_split(adjusted, count)], further])


def error_of_one(draws: np.ndarray) -> float:
    """Half of how far the median is above the draw that as many are below as normal ones are two standard errors below it:
    where single sequences carry a mean, its errors are anything but normal."""
    return float(np.median(draws) - np.quantile(draws, _TWO_BELOW)) / 2
