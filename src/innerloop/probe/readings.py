"""What a term of a layer is: its role in the algorithm, and its effect on the contexts that the layer typically finds."""

import numpy as np
from jaxtyping import Float

ROLES = {
    "w_yx": ("gradient step", "step up the gradient"),
    "w_xx": ("preconditioning", "preconditioning that stretches"),
    "w_xy": ("step adapted to the noise, momentum", "step adapted to the noise, momentum"),
    "w_yy": ("shrinkage by noise", "growth with noise"),
}
NO_EFFECT = "no effect: after the last layer only labels are read"


def role(flow: str, value: float) -> str:
    """The part that Vladymyrov et al. (2024, section 5) give the flow, by its sign."""
    return ROLES[flow][value > 0]


def effect(
    flow: str, value: float, S: Float[np.ndarray, "sequences D D"] | None, n: int | None
) -> dict[str, float]:
    """A term's effect in numbers, medians over contexts `S` as the layer finds them.

    - w_yx: `step`, its size -w_yx; `step_n` in units of 1 / n and `step_largest` in units of 1 / (Sigma's largest
      eigenvalue): labels in that direction are multiplied by 1 - step_largest, and beyond 2 the step overshoots.
    - w_xx: `largest` is the eigenvalue's factor on inputs, 1 + w_xx nu; `condition` and `condition_after` of Sigma, by
      this term alone.
    - w_xy: `factor`, 1 + w_xy lam, by which this term multiplies alpha, that is, the next gradient; with its 10 % and 90 %
      quantiles `low` and `high` over contexts, by rising lam.
    - w_yy: `factor`, 1 + w_yy lam, by which it multiplies labels; with `low` and `high`.
    """
    found = {"step": -value} if flow == "w_yx" else {}
    if S is None or n is None or not len(S):
        return found
    if flow in ("w_xy", "w_yy"):
        low, middle, high = 1 + value * np.quantile(S[:, -1, -1], [0.1, 0.5, 0.9])
        return {"factor": float(middle), "low": float(low), "high": float(high)}
    eigenvalues = np.linalg.eigvalsh(S[:, :-1, :-1])
    largest = float(np.median(eigenvalues[:, -1]))
    if flow == "w_yx":
        return found | {"step_n": -value * n, "step_largest": -value * largest}
    after = eigenvalues * (1 + value * eigenvalues) ** 2
    return {
        "largest": 1 + value * largest,
        "condition": _condition(eigenvalues),
        "condition_after": _condition(after),
    }


def _condition(eigenvalues: Float[np.ndarray, "sequences dim"]) -> float:
    """The median ratio of the largest to the smallest; infinite where the context is shorter than the dimension."""
    smallest = eigenvalues.min(1)
    ratio = np.where(smallest > 1e-12 * eigenvalues.max(1), eigenvalues.max(1) / np.abs(smallest), np.inf)
    return float(np.median(ratio))


def reading(flow: str, value: float, effect: dict[str, float], *, preconditioned: bool) -> str:
    """The role and the effect in words; `preconditioned` says whether an earlier layer moves the inputs."""
    said = role(flow, value)
    if flow == "w_yx":
        parts = [f"{said} of size {number(abs(value))}"]
        if "step_n" in effect:
            parts.append(f"{number(abs(effect['step_n']))} / n")
            parts.append(f"{number(abs(effect['step_largest']))} / largest eigenvalue")
        return " = ".join(parts) + (", on the moved inputs" if preconditioned else "")
    if not effect:
        return said
    if flow == "w_xx":
        condition = f"condition {number(effect['condition'])} to {number(effect['condition_after'])}"
        return f"{said}: inputs times {number(effect['largest'])} along the largest eigenvalue, {condition}"
    what = "the next gradient" if flow == "w_xy" else "labels"
    span = f"{number(effect['low'])} where labels are small to {number(effect['high'])} where they are large"
    return f"{said}: {what} times {number(effect['factor'])}, from {span}"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"
