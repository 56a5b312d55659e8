"""Models that are trained already, shipped as data: a name, its spec, how good it is, and how it was made.

One JSON file a model in `models/`, written by `python -m innerloop.shipped` and never by hand. The package is not called
`pretrained` because the function is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from innerloop.models import LinearTransformer
from innerloop.refused import nearest
from innerloop.study.spec import RunSpec, parse_spec
from innerloop.tasks import LinearRegression

_MODELS = files("innerloop.shipped") / "models"


@dataclass(frozen=True)
class Pretrained:
    """A model that is shipped with the package.

    Attributes:
        name: what `pretrained` knows it by: kind, depth and noise law.
        model: the trained model, in the precision of the caller's context.
        spec: the run that it comes from. A chain yields every depth: `spec.model.layers` may be more than the model's.
        results: on fresh sequences: `adjusted_loss`, `floor` and `regret`, each with `value` and `se`; `worst_share`,
            `not_finite`, `sequences`, `seed`.
        provenance: the command, git revision and versions that made it, and the seconds it took.
    """

    name: str
    model: LinearTransformer
    spec: RunSpec
    results: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def task(self) -> LinearRegression:
        """The problem that the model was trained on."""
        return self.spec.task.build()


@overload
def pretrained() -> pl.DataFrame: ...
@overload
def pretrained(name: str) -> Pretrained: ...
def pretrained(name: str | None = None) -> Pretrained | pl.DataFrame:
    """The shipped model of that name, such as `"diag-7-uniform5"`; without one, the table of all.

    Raises:
        ValueError: there is no such model; the nearest name is suggested.
    """
    if name is None:
        return pl.DataFrame([_row(name) for name in names()])
    if name not in names():
        raise ValueError(f"there is no shipped model {name!r}{nearest(name, names())}")
    content = _content(name)
    spec, exact = _exact(name)
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), exact)
    return Pretrained(name, model, spec, content["results"], content["provenance"])


@cache
def names() -> tuple[str, ...]:
    """All names, in alphabetical order."""
    found = (path.name for path in _MODELS.iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in found if name.endswith(".json")))


@cache
def _exact(name: str) -> tuple[RunSpec, LinearTransformer]:
    """The spec, and the model as NumPy arrays in the precision of training."""
    content = _content(name)
    spec = parse_spec(content["spec"])
    build = spec.model.model_copy(update={"layers": content["layers"]}).build
    structure = jax.tree.structure(eqx.filter_eval_shape(build, spec.task.build()))  # nothing is drawn
    return spec, jax.tree.unflatten(structure, [np.array(leaf) for leaf in content["parameters"]])


@cache
def _content(name: str) -> dict[str, Any]:
    return json.loads((_MODELS / f"{name}.json").read_text())


def _row(name: str) -> dict[str, Any]:
    content = _content(name)
    spec, results, made = content["spec"], content["results"], content["provenance"]
    return {
        "name": name,
        "kind": spec["model"]["kind"],
        "layers": content["layers"],
        "heads": spec["model"]["heads"],
        "dim": spec["task"]["dim"],
        "context": spec["task"]["context"],
        "noise": spec["task"]["noise"],
        "adjusted_loss": results["adjusted_loss"]["value"],
        "adjusted_loss_se": results["adjusted_loss"]["se"],
        "floor": results["floor"]["value"],
        "regret": results["regret"]["value"],
        "worst_share": results["worst_share"],
        "version": made["version"],
        "git_revision": made["git_revision"],
    }
