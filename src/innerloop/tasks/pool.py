"""A fixed set of sequences to train on, drawn once from a task: what a model sees when data are finite."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from innerloop.tasks.regression import LinearRegression
from innerloop.types import Moments, Prompt

_STREAM = 13  # no evaluation or training on fresh sequences draws from it


class Pool(eqx.Module):
    """`size` sequences of `task`, fixed by `seed`; prompts are drawn from them uniformly, with replacement.

    With growing size it becomes the task itself. A pool of few sequences can be memorised, as the few tasks of Raventos et
    al. (2023, arXiv 2306.15063) can.

    Args:
        task: where the sequences come from.
        size: how many there are.
        seed: which they are; the first sequences do not depend on the size of the pool.

    Attributes:
        sequences: all of them, as one batch of prompts with their latents.

    Raises:
        ValueError: `size` is not a whole number >= 1, or `seed` not one >= 0.
    """

    task: LinearRegression
    size: int = eqx.field(static=True)
    seed: int = eqx.field(static=True)
    sequences: Prompt

    def __init__(self, task: LinearRegression, size: int, seed: int = 0):
        for name, value, least in (("size", size, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        self.task, self.size, self.seed = task, int(size), int(seed)
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size))
        drawn = jax.vmap(lambda key: task.sample_prompts(key, 1))(keys)
        self.sequences = jax.tree.map(lambda leaf: leaf[:, 0], drawn)

    @property
    def dim(self) -> int:
        return self.task.dim

    @property
    def context(self) -> int:
        return self.task.context

    def sample_prompts(self, key: PRNGKeyArray, batch: int, *, dtype=None) -> Prompt:
        """`batch` prompts of the pool, shaped as the task's: x `(batch, context, dim)`, y `(batch, context)`, and so on.

        Raises:
            ValueError: `batch` is not a whole number >= 1.
        """
        if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
            raise ValueError(f"batch must be a whole number >= 1, got {batch!r}")
        chosen = jax.random.randint(key, (batch,), 0, self.size)
        return jax.tree.map(lambda leaf: leaf[chosen].astype(dtype or leaf.dtype), self.sequences)

    def sample_moments(self, key: PRNGKeyArray, batch: int, *, dtype=None) -> Moments:
        """The sufficient statistics of `sample_prompts`' contexts; arguments and errors as there."""
        return self.sample_prompts(key, batch, dtype=dtype).moments()
