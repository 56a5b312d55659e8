"""What the page may ask for. A request that is not of this form is a `ValidationError`, which says what must hold."""

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_POINTS = 200
MOST_FEATURES = 64
MOST_SEED = 9999
_LARGEST = 1e6  # of any number; what is larger is a mistake, and would only overflow

Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Flows = Annotated[
    list[Annotated[list[Pair], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=64)
]
Sigma = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DrawAsked(_Asked):
    """A fresh context."""

    n: int = Field(ge=1, le=MOST_POINTS)
    dim: int = Field(ge=1, le=MOST_FEATURES)
    sigma: Sigma
    seed: int = Field(ge=0, le=MOST_SEED)


class ContextAsked(_Asked):
    """What everyone says of a context; `flows` has an entry a run, null for the run's own numbers."""

    x: list[list[Number]] = Field(min_length=1, max_length=MOST_POINTS)
    y: list[Number] = Field(min_length=1, max_length=MOST_POINTS)
    sigma: Sigma
    flows: list[Flows | None]

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        widths = {len(row) for row in self.x}
        if len(widths) != 1 or not 1 <= min(widths) <= MOST_FEATURES:
            raise ValueError(
                f"x must have rows of one length from 1 to {MOST_FEATURES}, got {sorted(widths)}"
            )
        if len(self.y) != len(self.x):
            raise ValueError(
                f"y must have a label for each of the {len(self.x)} rows of x, got {len(self.y)}"
            )
        return self

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.x, float), np.array(self.y, float)


class LossesAsked(_Asked):
    """What a run loses with these flows, or, with null, with its own numbers."""

    run: int = Field(ge=0)
    flows: Flows | None = None
