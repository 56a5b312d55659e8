"""What probes measure, one sequence and one layer at a time, from the examples x and y themselves."""

import numpy as np


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights of least squares and the residual variance rss / (n - dim)."""
    weights, _, _, _ = np.linalg.lstsq(x, y, rcond=None)
    residuals = [label - weights @ point for point, label in zip(x, y, strict=True)]
    return weights, sum(r**2 for r in residuals) / (len(y) - x.shape[1])


def output_scale(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """The slope, through the origin, of a model's fitted labels on those of least squares."""
    best, _ = least_squares(x, y)
    fitted = [point @ weights for point in x]
    ideal = [point @ best for point in x]
    return sum(f * i for f, i in zip(fitted, ideal, strict=True)) / sum(i * i for i in ideal)


def steps(x: np.ndarray, y: np.ndarray, path: np.ndarray) -> list[tuple[float, float]]:
    """(step, along) of every move of a path of weights `(layers + 1, dim)`; the step in units of Sigma / n."""
    found = []
    for before, after in zip(path[:-1], path[1:], strict=True):
        gradient = sum((label - before @ point) * point for point, label in zip(x, y, strict=True))
        move = after - before
        product = move @ gradient
        cosine = product / (np.linalg.norm(move) * np.linalg.norm(gradient))
        found.append((len(y) * product / (gradient @ gradient), cosine**2))
    return found
