"""What a run is: a validated description, from a YAML file, a mapping, or keyword arguments."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import yaml
from jaxtyping import PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from innerloop.models import LinearTransformer
from innerloop.refused import describe, keys_of
from innerloop.study.errors import SpecError
from innerloop.tasks import LinearRegression, parse_noise
from innerloop.tasks.wishart import LARGEST_RANK
from innerloop.train import Training
from innerloop.train.settings import SECOND_ORDER

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's, five times as fast, where it is there


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class TaskSpec(_Section):
    """The problem; see `innerloop.LinearRegression`."""

    kind: Literal["linear_regression"] = "linear_regression"
    dim: int = Field(default=10, ge=1, strict=True, description="number of features, d")
    context: int = Field(default=20, ge=1, strict=True, description="examples in a prompt, n")
    noise: str = Field(
        default="uniform(0,5)", description="law of sigma: fixed(s), uniform(a,b), categorical(1,3,5)"
    )
    input_covariance: list[list[float]] | None = None
    weight_covariance: list[list[float]] | None = None

    @field_validator("noise", mode="before")
    @classmethod
    def _is_a_law(cls, text: Any) -> str:
        return str(parse_noise(str(text)))

    @field_validator("input_covariance", "weight_covariance")
    @classmethod
    def _has_equal_rows(cls, rows: list[list[float]] | None) -> list[list[float]] | None:
        if rows is not None and len({len(row) for row in rows}) > 1:
            raise ValueError(f"must have rows of equal length, got lengths {[len(row) for row in rows]}")
        return rows

    @model_validator(mode="after")
    def _makes_a_task(self):
        self.build()
        return self

    def build(self) -> LinearRegression:
        given = (self.input_covariance, self.weight_covariance)
        covariances = [None if rows is None else np.array(rows) for rows in given]
        return LinearRegression(self.dim, self.context, self.noise, *covariances)


class ModelSpec(_Section):
    """The model; see `innerloop.LinearTransformer`."""

    kind: Literal["full", "diag", "gd++"] = "diag"
    layers: int = Field(default=4, ge=1, le=64, strict=True)
    heads: int = Field(default=1, ge=1, le=64, strict=True)
    init_scale: float = Field(
        default=1.0, gt=0, le=100, description="multiplies the parameters that training starts from"
    )

    @model_validator(mode="after")
    def _gd_plus_plus_has_one_head(self):
        if self.kind == "gd++" and self.heads != 1:
            raise ValueError(f"heads must be 1 for kind gd++, got {self.heads}")
        return self

    def build(self, task: LinearRegression, seed: int = 0) -> LinearTransformer:
        """A fresh model, its inner scales set for the task."""
        model = _drawn(self.kind, task.dim, self.layers, self.heads, jax.random.key(seed))
        scale = round(task.label_variance**-0.5, 6)
        model = replace(model, context=task.context, label_scale=scale)
        return model if self.init_scale == 1 else jax.tree.map(lambda leaf: leaf * self.init_scale, model)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _drawn(kind: str, dim: int, layers: int, heads: int, key: PRNGKeyArray) -> LinearTransformer:
    """A fresh model with the default scales: compiled once for all problems and seeds."""
    key = jax.random.fold_in(key, 5)
    if kind == "gd++":
        return LinearTransformer.gd_plus_plus(dim, layers, key=key)
    make = {"full": LinearTransformer.full, "diag": LinearTransformer.diag}[kind]
    return make(dim, layers, heads, key=key)


class EvaluateSpec(_Section):
    """How the trained model is judged."""

    sequences: int = Field(default=100_000, ge=2, strict=True)
    seed: int = Field(default=0, ge=0, lt=2**31, strict=True)


class RunSpec(_Section):
    """One run: a task, a model, how to train it and how to judge it."""

    task: TaskSpec = TaskSpec()
    model: ModelSpec = ModelSpec()
    train: Training = Training()
    evaluate: EvaluateSpec = EvaluateSpec()

    @model_validator(mode="after")
    def _learning_rate_is_used(self):
        optimizer = self.train.resolved(self.model.kind).optimizer
        if optimizer in SECOND_ORDER and self.train.learning_rate is not None:
            raise ValueError(
                f"train.learning_rate is for adam and muon, got {self.train.learning_rate:g}, but {self.model.kind} trains "
                f"by {optimizer}; set train.optimizer too, or leave train.learning_rate out"
            )
        return self

    @model_validator(mode="after")
    def _only_full_starts_from_others(self):
        if self.train.start != "random" and self.model.kind != "full":
            raise ValueError(
                f"train.start must be random for kind {self.model.kind}, got {self.train.start!r}"
            )
        if self.train.start != "random" and self.model.init_scale != 1:
            raise ValueError(
                f"model.init_scale must be 1 where train.start is not random, got {self.model.init_scale:g}"
            )
        return self

    @model_validator(mode="after")
    def _spectral_solves_what_it_can(self):
        if self.train.optimizer != "spectral":
            return self
        if self.model.kind != "gd++":
            raise ValueError(
                f"train.optimizer is spectral, which is for model.kind gd++, got {self.model.kind!r}"
            )
        if self.task.input_covariance is not None:
            raise ValueError("train.optimizer is spectral, which is for task.input_covariance null, got one")
        if (rank := min(self.task.dim, self.task.context)) > LARGEST_RANK:
            raise ValueError(
                "train.optimizer is spectral, for which the smaller of task.dim and task.context must be at most "
                f"{LARGEST_RANK}, got {rank}"
            )
        return self

    def depths(self) -> range:
        """The depths of the models that the run ends with: what goes through the depths keeps every one on its way."""
        training, deepest = self.train.resolved(self.model.kind), self.model.layers
        return range(1 if training.passes_depths else deepest, deepest + 1)

    def name(self) -> str:
        """A folder name that a person can read: kind, depth, heads, noise and seed."""
        law = parse_noise(self.task.noise)
        noise = "-".join([self.task.noise.split("(")[0], *(f"{value:g}" for value in law.arguments())])
        heads = f"-{self.model.heads}h" if self.model.heads > 1 else ""
        kind = self.model.kind.replace("++", "pp")
        return f"{kind}-{self.model.layers}l{heads}-d{self.task.dim}-n{self.task.context}-{noise}-seed{self.train.seed}"

    def to_yaml(self) -> str:
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)


def parse_spec(mapping: Any) -> RunSpec:
    """The spec that `mapping` describes.

    Raises:
        SpecError: a key is unknown (the nearest known one is suggested) or a value is not allowed.
    """
    if not isinstance(mapping, dict):
        raise SpecError(
            f"a spec must be a mapping with the keys {keys_of(RunSpec)}, got {type(mapping).__name__}"
        )
    try:
        return RunSpec.model_validate(mapping)
    except ValidationError as error:
        raise SpecError(describe(error, RunSpec)) from None


def load_spec(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> RunSpec:
    """The spec in the YAML file `path`, with `a.b=value` overrides applied.

    Raises:
        SpecError: the file cannot be read, is not YAML, or does not describe a run; or an override is malformed.
    """
    mapping, text = read_yaml(path, "the spec ")
    if not text.strip() and not overrides:
        raise SpecError(f"{path} is empty: a spec must be a mapping with some of the keys {keys_of(RunSpec)}")
    if isinstance(mapping, dict) and {"base", "axes"} & mapping.keys():
        raise SpecError(f"{path} describes a study, not a run; train it by innerloop sweep {path}")
    mapping = {} if mapping is None else mapping
    for override in overrides:
        _override(mapping, override)
    return parse_spec(mapping)


def read_yaml(path: Path, what: str = "") -> tuple[Any, str]:
    """The content of a YAML file, and its text; `what` begins the file's name in a message.

    Raises:
        SpecError: it cannot be read, or is not YAML.
    """
    try:
        text = Path(path).read_text()
        return yaml.safe_load(text), text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise SpecError(f"{path} is not valid YAML{line}: {getattr(error, 'problem', error)}") from None
    except (OSError, ValueError) as error:  # not there, not text, or a date that is none
        raise SpecError(f"cannot read {what}{path}: {getattr(error, 'strerror', None) or error}") from None


def _override(mapping: Any, text: str) -> None:
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise SpecError(f"--set takes section.field=value, such as train.seed=3, got {text!r}")
    if not isinstance(mapping, dict):
        raise SpecError(
            f"a spec must be a mapping with the keys {keys_of(RunSpec)}, got {type(mapping).__name__}"
        )
    for part in parts[:-1]:
        mapping = mapping.setdefault(part, {})
        if not isinstance(mapping, dict):
            raise SpecError(f"--set {text}: {part} is not a section")
    try:
        mapping[parts[-1]] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise SpecError(f"--set {text}: the value is not valid YAML") from None
