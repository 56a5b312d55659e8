"""A study: one base run and the axes along which runs differ; which runs that is, and which of them train together.

    base: run.yaml                                  # or the mapping itself
    axes:
      model.layers: [1, 2, 3]                       # a list
      train.seed: {range: [0, 4]}                   # 0, 1, 2, 3, as Python's range
      train.learning_rate: {geometric: [0.001, 0.1, 3]}   # from, to, how many
      model.kind, model.heads: [[diag, 2], [gd++, 1]]     # zipped: the fields go together
    when:                                           # settings for some of the runs
      - {if: {model.kind: full}, set: {train.optimizer: muon}}
    skip:                                           # leave these combinations out
      - {model.kind: gd++, model.layers: [3, 4]}

The runs are the product of the axes, in the order written, the last axis fastest.
"""

import copy
import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from innerloop.refused import describe, nearest
from innerloop.study.spec import RunSpec, SpecError, parse_spec, read_yaml
from innerloop.tasks import parse_noise
from innerloop.train.settings import ONWARD, TRIAL


class _When(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    matches: dict[str, Any] = Field(alias="if")
    set: dict[str, Any]


class StudySpec(BaseModel):
    """A study file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$", description="by default the file's name")
    base: dict[str, Any] | str = Field(
        default_factory=dict, description="a run spec, or the path of its file"
    )
    axes: dict[str, Any] = Field(default_factory=dict)
    when: list[_When] = Field(default_factory=list)
    skip: list[dict[str, Any]] = Field(default_factory=list)

    @field_validator("base", mode="before")
    @classmethod
    def _is_a_spec_or_its_path(cls, base: Any) -> Any:
        if not isinstance(base, (dict, str)):
            raise ValueError(f"must be a run spec or the path of its file, got {base!r}")
        return base


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: of its folder, unique in the study.
        spec: what it is.
        coordinates: where on the axes it lies.
    """

    name: str
    spec: RunSpec
    coordinates: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Runs that train together: their programs have one shape."""

    name: str
    runs: tuple[PlannedRun, ...]

    @property
    def together(self) -> bool:
        """Whether they are one compiled program; runs of second-order training each have a program of their own."""
        return len(self.runs) > 1


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        name: of the study.
        runs: all of them.
        groups: the same, as they train.
        source: the study file's text as it is kept, with the base inside.
    """

    name: str
    runs: tuple[PlannedRun, ...]
    groups: tuple[Group, ...]
    source: str

    def seconds(self, workers: int) -> float:
        """About how long it takes on `workers` processes of this kind of machine; for a first impression."""
        return sum(_seconds(group) for group in self.groups) / max(1, min(workers, len(self.groups)))

    def keeping(self, names: Collection[str]) -> "Plan":
        """Only the runs of these names, for now: groups keep their names, and the study file is still that of all runs."""
        groups = [
            replace(group, runs=tuple(run for run in group.runs if run.name in names))
            for group in self.groups
        ]
        return replace(
            self,
            runs=tuple(run for run in self.runs if run.name in names),
            groups=tuple(group for group in groups if group.runs),
        )


def load_study_spec(path: Path) -> tuple[StudySpec, str]:
    """The study in the YAML file `path`, and its name.

    Raises:
        SpecError: the file cannot be read or does not describe a study; the message says line and field.
    """
    path = Path(path)
    mapping, text = read_yaml(path, "the study ")
    if not isinstance(mapping, dict):
        known = ", ".join(StudySpec.model_fields)
        raise SpecError(
            f"{path}: a study must be a mapping with the keys {known}, got {type(mapping).__name__}"
        )
    if mapping.keys() <= RunSpec.model_fields.keys() and mapping:
        raise SpecError(f"{path} describes one run, not a study; train it by innerloop train {path}")
    lines = _lines(path, text)
    try:
        study = StudySpec.model_validate(mapping)
    except ValidationError as error:
        raise SpecError(describe(error, StudySpec, where=lambda loc: _at(path, lines, loc))) from None
    if isinstance(study.base, str):
        base = path.parent / study.base
        try:
            inside = yaml.safe_load(base.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "problem", None) or error
            raise SpecError(f"{_at(path, lines, ('base',))}base: cannot read {base}: {reason}") from None
        inside = {} if inside is None else inside
        if not isinstance(inside, dict):
            raise SpecError(
                f"{_at(path, lines, ('base',))}base: {base} must be a mapping, got {type(inside).__name__}"
            )
        study = study.model_copy(update={"base": inside})
    try:
        make_plan(study)
    except _At as error:
        raise SpecError(f"{_at(path, lines, error.loc)}{error}") from None
    return study, study.name or path.stem


class _At(SpecError):
    """An error with the place in the study's mapping where it comes from."""

    def __init__(self, loc: tuple, message: str):
        super().__init__(message)
        self.loc = loc


def make_plan(study: StudySpec, name: str = "study", *, at_most: int = 64, workers: int = 1) -> Plan:
    """Expand the axes and form the groups.

    Args:
        at_most: runs in a group.
        workers: processes that will share the work: no group is larger than an equal share.

    Raises:
        SpecError: an axis or a combination is wrong, two runs are the same, or nothing is left to run.
    """
    assert isinstance(study.base, dict)
    axes = [_axis(key, values) for key, values in study.axes.items()]
    fields = [field for names, _ in axes for field in names]
    if len(set(fields)) < len(fields):
        twice = next(field for field in fields if fields.count(field) > 1)
        raise _At(("axes",), f"axes: {twice} is on two axes")
    _check_mentions(study)
    specs: dict[str, tuple[RunSpec, dict[str, Any]]] = {}
    for point in itertools.product(*(values for _, values in axes)):
        coordinates = {
            field: value
            for (names, _), values in zip(axes, point, strict=True)
            for field, value in zip(names, values, strict=True)
        }
        mapping = copy.deepcopy(study.base)
        for field, value in coordinates.items():
            _set(mapping, field, value)
        if any(_matches(mapping, pattern) for pattern in study.skip):
            continue
        places: dict[str, tuple] = {
            field: ("axes", key) for key, (names, _) in zip(study.axes, axes, strict=True) for field in names
        }
        for index, case in enumerate(study.when):
            if _matches(mapping, case.matches):
                for field, value in case.set.items():
                    _set(mapping, field, value)
                    places[field] = ("when", index, "set", field)
        spec = _parsed(mapping, coordinates, places)
        if (text := spec.to_yaml()) in specs:
            raise _At(("axes",), f"axes: {coordinates} and {specs[text][1]} are the same run")
        specs[text] = (spec, coordinates)
    if not specs:
        raise _At(("skip",), "skip: nothing is left to run")
    runs = _named(list(specs.values()))
    return Plan(name, runs, _grouped(runs, at_most, workers), _kept(study, name))


def _check_mentions(study: StudySpec) -> None:
    """That `when` and `skip` speak of fields that there are, and that the base has sections where sections must be."""
    for index, case in enumerate(study.when):
        for part, fields in (("if", case.matches), ("set", case.set)):
            for field in fields:
                _check_field(field, ("when", index, part, field))
    for index, pattern in enumerate(study.skip):
        for field in pattern:
            _check_field(field, ("skip", index, field))
    assert isinstance(study.base, dict)
    for section, inside in study.base.items():
        if not isinstance(inside, dict):
            _parsed({section: inside}, {}, {})


def _parsed(mapping: dict, coordinates: dict[str, Any], places: dict[str, tuple]) -> RunSpec:
    try:
        return parse_spec(mapping)
    except SpecError as error:
        # The place is the axis or the setting of the field, or section, that the message begins with, else the base.
        field = re.split(r"[:\s]", str(error))[0]
        near = [place for name, place in places.items() if f"{name}.".startswith(f"{field}.")]
        loc = near[0] if near else ("base", *field.split("."))
        here = ", ".join(f"{name}={value}" for name, value in coordinates.items())
        raise _At(loc, f"{error}" + (f" (in the run {here})" if here else "")) from None


def _axis(key: str, values: Any) -> tuple[list[str], list[tuple]]:
    """The fields of an axis, and its points, one value a field."""
    names = [name.strip() for name in key.split(",")]
    loc = ("axes", key)
    for name in names:
        _check_field(name, loc)
    if isinstance(values, dict):
        values = _interval(key, values)
    if not isinstance(values, list) or not values:
        raise _At(
            loc,
            f"axes.{key}: must be a list of values, {{range: [from, to]}} or "
            f"{{geometric: [from, to, how many]}}, got {values!r}",
        )
    if len(names) == 1:
        return names, [(value,) for value in values]
    for value in values:
        if not isinstance(value, list) or len(value) != len(names):
            raise _At(loc, f"axes.{key}: each point must be a list of {len(names)} values, got {value!r}")
    return names, [tuple(value) for value in values]


def _interval(key: str, values: dict) -> list:
    loc = ("axes", key)
    (kind, numbers), *more = values.items() or [(None, None)]
    counts = {"range": (1, 2, 3), "geometric": (3,)}
    if more or kind not in counts or not isinstance(numbers, list) or len(numbers) not in counts[kind]:
        raise _At(
            loc,
            f"axes.{key}: must be {{range: [from, to]}} or {{geometric: [from, to, how many]}}, got {values!r}",
        )
    if kind == "range":
        if (
            not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
            or 0 in numbers[2:]
        ):
            raise _At(loc, f"axes.{key}: range takes whole numbers as Python's does, got {numbers!r}")
        return list(range(*numbers))
    *ends, count = numbers
    try:
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (0 < low < np.inf and 0 < high < np.inf and type(count) is int and count > 0):
        raise _At(loc, f"axes.{key}: geometric takes two positive numbers and how many, got {numbers!r}")
    return [float(f"{value:.6g}") for value in np.geomspace(low, high, count)]


def _check_field(name: str, loc: tuple) -> None:
    known = [
        f"{section}.{field}"
        for section, info in RunSpec.model_fields.items()
        for field in info.annotation.model_fields  # type: ignore[union-attr]
    ]
    if name not in known:
        raise _At(loc, f"{loc[0]}.{name}: unknown field{nearest(name, known)}")


def _set(mapping: dict, field: str, value: Any) -> None:
    section, _, name = field.partition(".")
    mapping.setdefault(section, {})[name] = value


def _matches(mapping: dict, pattern: dict[str, Any]) -> bool:
    """Whether every field of the pattern has its value, or one of its values; what is left out has its default."""
    defaults = RunSpec().model_dump()
    for field, wanted in pattern.items():
        section, _, name = field.partition(".")
        value = mapping.get(section, {}).get(name, defaults[section][name])
        if value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _named(specs: list[tuple[RunSpec, dict[str, Any]]]) -> tuple[PlannedRun, ...]:
    """Folder names that a person can read: the spec's own, then what else differs, then a digest if nothing else helps."""
    said = {
        "model.kind",
        "model.layers",
        "model.heads",
        "task.dim",
        "task.context",
        "task.noise",
        "train.seed",
    }
    names = []
    for spec, coordinates in specs:
        more = [
            f"{key.split('.')[-1]}-{_word(value)}" for key, value in coordinates.items() if key not in said
        ]
        names.append("-".join([spec.name(), *more]))
    counts = {name: names.count(name) for name in set(names)}
    return tuple(
        PlannedRun(name if counts[name] == 1 else f"{name}-{_digest(spec)}", spec, coordinates)
        for name, (spec, coordinates) in zip(names, specs, strict=True)
    )


def _word(value: Any) -> str:
    """A value as part of a folder's name."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    plain = text.replace(".", "").replace("-", "").isalnum() and len(text) <= 24
    return text if plain else hashlib.sha256(text.encode()).hexdigest()[:6]


def _digest(spec: RunSpec) -> str:
    return hashlib.sha256(spec.to_yaml().encode()).hexdigest()[:8]


def shape(spec: RunSpec) -> str | None:
    """What the compiled program of a run depends on; None if it trains by itself.

    Runs of one shape may differ in seed, data stream, learning rate, initial scale and the numbers of the noise law.
    """
    training = spec.train.resolved(spec.model.kind)
    if training.trains_alone:
        return None
    law = parse_noise(spec.task.noise)
    mapping = spec.model_dump(mode="json")
    mapping["train"] = training.model_dump(mode="json")
    for field in ("seed", "data_seed", "learning_rate"):
        mapping["train"].pop(field)
    mapping["model"].pop("init_scale")
    mapping["task"]["noise"] = [type(law).__name__, len(law.arguments())]
    mapping.pop("evaluate")
    return json.dumps(mapping, sort_keys=True)


def _grouped(runs: tuple[PlannedRun, ...], at_most: int, workers: int) -> tuple[Group, ...]:
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        alike.setdefault(shape(run.spec) or run.name, []).append(run)
    groups = []
    for members in alike.values():
        parts = max(-(-len(members) // at_most), min(workers, len(members)))
        groups += [tuple(part) for part in np.array_split(np.arange(len(members)), parts) if len(part)]
        groups[-parts:] = [tuple(members[index] for index in part) for part in groups[-parts:]]
    return tuple(Group(f"group-{index:04d}", group) for index, group in enumerate(groups))


def _seconds(group: Group) -> float:
    """From timings on two cores of 2020s hardware: compilation, then each sequence's draw and each layer's products."""
    total = 6.0
    for run in group.runs:
        spec, training = run.spec, run.spec.train.resolved(run.spec.model.kind)
        assert training.steps is not None
        size = (spec.task.dim + 1) ** 3 / 11**3
        if training.has_chain:
            total += sum((3 + 1.2 * depth) * (0.5 + size / 2) for depth in spec.depths())
        if training.optimizer == "spectral":
            total += 4.0 + 2.5 * len(spec.depths())
        elif training.optimizer != "levenberg-marquardt":
            layer = 6.6e-6 if spec.model.kind == "full" else 1.5e-6
            updates = training.steps * training.batch * (2 if training.precision == "float64" else 1)
            shares = {depth: 1.0 for depth in spec.depths()}
            if training.start == "deeper":
                shares = {depth: (depth + 1) / math.prod(TRIAL) + 1 / ONWARD for depth in spec.depths()}
                shares[spec.model.layers + 1] = 1.0
            total += sum(share * updates * (12e-6 + layer * depth) * size for depth, share in shares.items())
    return total


def _kept(study: StudySpec, name: str) -> str:
    mapping = study.model_dump(mode="json", by_alias=True) | {"name": name}
    return yaml.safe_dump({key: value for key, value in mapping.items() if value}, sort_keys=False)


def _lines(path: Path, text: str) -> dict[tuple, int]:
    """The line on which each key of the YAML text of the file `path` stands.

    Raises:
        SpecError: a key stands in one mapping twice: YAML would forget the first.
    """
    found: dict[tuple, int] = {}

    def visit(node: yaml.Node, loc: tuple) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                if (first := found.get((*loc, key.value))) is not None:
                    raise SpecError(f"{path}, line {line}: {key.value} is there already, on line {first}")
                found[(*loc, key.value)] = line
                visit(value, (*loc, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                found[(*loc, index)] = value.start_mark.line + 1
                visit(value, (*loc, index))

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        visit(root, ())
    return found


def _at(path: Path, lines: dict[tuple, int], loc: tuple) -> str:
    """`file, line n: ` of the nearest key that the file has."""
    for size in range(len(loc), 0, -1):
        if loc[:size] in lines:
            return f"{path}, line {lines[loc[:size]]}: "
    return f"{path}: "
