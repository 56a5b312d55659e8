"""Specs: defaults, the way through YAML, and what a user is told about a mistake."""

import re

import pytest
import yaml

from innerloop.study import RunSpec, SpecError, load_spec, parse_spec
from innerloop.tasks import Uniform

EYE_3 = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

# What is wrong, and all that the message must say: field, value, what is allowed.
BAD = {
    "unknown section": (
        {"taks": {}},
        ["taks: unknown key", "did you mean task?", "task, model, train, evaluate"],
    ),
    "unknown model key": (
        {"model": {"layres": 2}},
        ["model.layres: unknown", "did you mean layers?", "kind, layers"],
    ),
    "unknown train key": ({"train": {"optimiser": "adam"}}, ["train.optimiser", "did you mean optimizer?"]),
    "unknown task key": ({"task": {"nosie": "fixed(1)"}}, ["task.nosie", "did you mean noise?"]),
    "unknown evaluate key": (
        {"evaluate": {"sequence": 9}},
        ["evaluate.sequence: ", "did you mean sequences?"],
    ),
    "unlike any key": ({"model": {"zzz": 1}}, ["model.zzz: unknown key", "Allowed: kind, layers, heads"]),
    "key not text": ({"model": {1: 2}}, ["model.1", "keys should be strings"]),
    "negative layers": ({"model": {"layers": -1}}, ["model.layers", "greater than or equal to 1", "-1"]),
    "no layers": ({"model": {"layers": 0}}, ["model.layers", "greater than or equal to 1", "got 0"]),
    "too many layers": ({"model": {"layers": 65}}, ["model.layers", "less than or equal to 64", "65"]),
    "text for a number": ({"model": {"layers": "3"}}, ["model.layers", "integer", "'3'"]),
    "decimal for a whole number": ({"model": {"layers": 2.5}}, ["model.layers", "integer", "2.5"]),
    "truth for a number": ({"model": {"heads": True}}, ["model.heads", "integer", "True"]),
    "nothing for a number": ({"task": {"dim": None}}, ["task.dim", "integer", "None"]),
    "heads of gd++": (
        {"model": {"kind": "gd++", "heads": 2}},
        ["model", "heads must be 1 for kind gd++", "got 2"],
    ),
    "unknown kind": ({"model": {"kind": "dense"}}, ["model.kind", "'full', 'diag' or 'gd++'", "'dense'"]),
    "unknown task kind": ({"task": {"kind": "cubic"}}, ["task.kind", "'linear_regression'", "'cubic'"]),
    "unknown optimizer": (
        {"train": {"optimizer": "sgd"}},
        ["train.optimizer", "'levenberg-marquardt'", "'sgd'"],
    ),
    "unknown objective": (
        {"train": {"objective": "mse"}},
        ["train.objective", "'oracle' or 'bayes'", "'mse'"],
    ),
    "unknown precision": ({"train": {"precision": "float16"}}, ["train.precision", "'float64'", "'float16'"]),
    "unknown law": ({"task": {"noise": "gauss(1)"}}, ["task.noise", "uniform(a,b)", "'gauss(1)'"]),
    "number for a law": ({"task": {"noise": 5}}, ["task.noise", "uniform(a,b)", "'5'"]),
    "law without numbers": (
        {"task": {"noise": "uniform(a,b)"}},
        ["task.noise", "with numbers", "'uniform(a,b)'"],
    ),
    "too few numbers": ({"task": {"noise": "uniform(1)"}}, ["task.noise", "takes 2", "'uniform(1)'"]),
    "negative sigma": ({"task": {"noise": "fixed(-1)"}}, ["task.noise", ">= 0", "-1"]),
    "sigma not a number": ({"task": {"noise": "uniform(0,nan)"}}, ["task.noise", "finite", "nan"]),
    "levels reversed": ({"task": {"noise": "uniform(5,0)"}}, ["task.noise", "low < high", "low=5, high=0"]),
    "level twice": ({"task": {"noise": "categorical(1,1)"}}, ["task.noise", "distinct", "(1.0, 1.0)"]),
    "no context": ({"task": {"context": 0}}, ["task.context", "greater than or equal to 1", "got 0"]),
    "negative dim": ({"task": {"dim": -1}}, ["task.dim", "greater than or equal to 1", "-1"]),
    "covariance shape": (
        {"task": {"dim": 2, "input_covariance": EYE_3}},
        ["input_covariance", "(2, 2)", "(3, 3)"],
    ),
    "covariance asymmetric": ({"task": {"dim": 2, "input_covariance": [[1, 0.5], [0, 1]]}}, ["symmetric"]),
    "covariance indefinite": (
        {"task": {"dim": 2, "weight_covariance": [[1, 2], [2, 1]]}},
        ["task: weight_covariance", "positive semi-definite", "-1"],
    ),
    "covariance with NaN": (
        {"task": {"dim": 1, "weight_covariance": [[float("nan")]]}},
        ["weight_covariance", "finite", "NaN"],
    ),
    "covariance ragged": (
        {"task": {"dim": 2, "weight_covariance": [[1], [0, 1]]}},
        ["task.weight_covariance", "rows of equal length", "[1, 2]"],
    ),
    "covariance by name": ({"task": {"input_covariance": "eye"}}, ["task.input_covariance", "list", "'eye'"]),
    "learning rate zero": (
        {"train": {"learning_rate": 0}},
        ["train.learning_rate", "greater than 0", "got 0"],
    ),
    "learning rate NaN": (
        {"train": {"learning_rate": float("nan")}},
        ["train.learning_rate", "finite", "nan"],
    ),
    "learning rate as text": (
        {"train": {"learning_rate": "fast"}},
        ["train.learning_rate", "number", "'fast'"],
    ),
    "learning rate of levenberg-marquardt": (
        {"train": {"optimizer": "levenberg-marquardt", "learning_rate": 0.1}},
        ["train", "learning_rate", "adam and muon", "levenberg-marquardt"],
    ),
    "learning rate of a kind's default": (
        {"model": {"kind": "gd++"}, "train": {"learning_rate": 0.1}},
        ["train.learning_rate", "adam and muon", "got 0.1", "gd++", "train.optimizer"],
    ),
    "empty batch": ({"train": {"batch": 0}}, ["train.batch", "greater than or equal to 1", "got 0"]),
    "fraction of a sequence": ({"train": {"batch": 2.5}}, ["train.batch", "integer", "2.5"]),
    "no steps": ({"train": {"steps": 0}}, ["train.steps", "greater than or equal to 1", "got 0"]),
    "negative seed": ({"train": {"seed": -1}}, ["train.seed", "greater than or equal to 0", "-1"]),
    "seed too large": ({"train": {"seed": 2**31}}, ["train.seed", "less than 2147483648", "2147483648"]),
    "negative temper": ({"train": {"temper": -1}}, ["train.temper", "greater than 0", "-1"]),
    "one sequence": (
        {"evaluate": {"sequences": 1}},
        ["evaluate.sequences", "greater than or equal to 2", "got 1"],
    ),
    "number for a section": ({"task": 3}, ["task", "must be a mapping", "dim, context", "got 3"]),
    "list for a section": ({"model": [1]}, ["model", "must be a mapping", "kind, layers, heads", "[1]"]),
    "a list": ([1], ["must be a mapping", "task, model, train, evaluate", "list"]),
    "a word": ("diag", ["must be a mapping", "task, model, train, evaluate", "str"]),
}


def message_of(mapping) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(mapping)
    return str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_gets_one_line_with_field_value_and_what_is_allowed(name):
    mapping, expected = BAD[name]
    message = message_of(mapping)
    assert [part for part in expected if part not in message] == []
    assert "\n" not in message
    assert "pydantic" not in message


def test_every_mistake_is_named_at_once():
    lines = message_of({"model": {"layers": 0, "heads": 0}, "train": {"batch": 0}}).splitlines()
    assert [line.split(":")[0] for line in lines] == ["model.layers", "model.heads", "train.batch"]


def test_nothing_said_is_the_paper_s_problem():
    spec = parse_spec({})
    assert spec == RunSpec()
    assert (spec.task.dim, spec.task.context, spec.task.noise) == (10, 20, "uniform(0,5)")
    assert (spec.model.kind, spec.model.layers, spec.model.heads) == ("diag", 4, 1)
    assert (spec.train.objective, spec.train.seed, spec.evaluate.sequences) == ("bayes", 0, 100_000)
    assert spec.task.build().noise == Uniform(0, 5)


@pytest.mark.parametrize(
    ("kind", "optimizer", "precision"),
    [
        ("full", "muon", "float32"),
        ("diag", "levenberg-marquardt", "float64"),
        ("gd++", "levenberg-marquardt", "float64"),
    ],
)
def test_defaults_of_training_depend_on_the_kind(kind, optimizer, precision):
    spec = parse_spec({"model": {"kind": kind}})
    resolved = spec.train.resolved(spec.model.kind)
    assert (resolved.optimizer, resolved.precision) == (optimizer, precision)
    assert (resolved.learning_rate is None) == (optimizer == "levenberg-marquardt")


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"task": {"dim": 2, "noise": "categorical( 1, 3 )", "input_covariance": [[2, 0.5], [0.5, 1]]}},
        {
            "model": {"kind": "full", "layers": 2, "heads": 3},
            "train": {"optimizer": "adam", "learning_rate": 1e-3},
        },
        {"task": {"noise": "fixed(0.1)"}, "train": {"temper": None, "seed": 7}, "evaluate": {"sequences": 2}},
    ],
)
def test_yaml_gives_the_same_spec_back(mapping, tmp_path):
    spec = parse_spec(mapping)
    path = tmp_path / "spec.yaml"
    path.write_text(spec.to_yaml())
    assert load_spec(path) == spec
    assert parse_spec(yaml.safe_load(spec.to_yaml())).to_yaml() == spec.to_yaml()


def test_a_law_is_kept_in_its_shortest_form():
    assert parse_spec({"task": {"noise": " Uniform(0.0, 5.50) "}}).task.noise == "uniform(0,5.5)"


def test_a_spec_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        parse_spec({}).model.layers = 3  # type: ignore[misc]


def test_names_tell_runs_apart():
    changes = [
        {},
        {"task": {"dim": 9}},
        {"task": {"context": 19}},
        {"task": {"noise": "uniform(0,4)"}},
        {"task": {"noise": "fixed(1)"}},
        {"model": {"kind": "gd++"}},
        {"model": {"layers": 3}},
        {"model": {"heads": 2}},
        {"train": {"seed": 1}},
    ]
    names = [parse_spec(change).name() for change in changes]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", name) for name in names), (
        "a folder name that no shell has to quote"
    )


def test_a_model_is_built_to_the_spec_and_the_seed():
    spec = parse_spec({"task": {"dim": 3, "context": 7}, "model": {"kind": "full", "layers": 2, "heads": 2}})
    task = spec.task.build()
    model, again, other = (spec.model.build(task, seed) for seed in (0, 0, 1))
    assert (model.kind, model.dim, model.layers, model.heads, model.context) == ("full", 3, 2, 2, 7)
    assert (model.matrices()[0] == again.matrices()[0]).all()
    assert (model.matrices()[0] != other.matrices()[0]).any()
    assert model.label_scale == pytest.approx((3 + 25 / 3) ** -0.5, abs=1e-6), "E y^2 = dim + E sigma^2"


def test_overrides_win_in_order(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {kind: full, layers: 2}\n")
    spec = load_spec(
        path, ["model.layers=3", "train.seed=5", "model.layers=7", "task.noise=categorical(1,3)"]
    )
    assert (spec.model.kind, spec.model.layers, spec.train.seed) == ("full", 7, 5)
    assert spec.task.noise == "categorical(1,3)"


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("# nothing yet\n")
    assert load_spec(path) == RunSpec()
    assert load_spec(path, ["model.layers=2"]).model.layers == 2


@pytest.mark.parametrize(
    ("content", "overrides", "expected"),
    [
        (None, [], ["run.yaml", "No such file"]),
        ("task: {dim: 3\nmodel: [", [], ["run.yaml", "not valid YAML", "line 2"]),
        ("- task\n- model\n", [], ["must be a mapping", "got list"]),
        ("- task\n", ["task.dim=3"], ["must be a mapping", "got list"]),
        (b"\xff\xfe\x80", [], ["run.yaml", "cannot read"]),
        ("", ["train.seed"], ["--set takes section.field=value", "'train.seed'"]),
        ("", ["=3"], ["--set takes section.field=value", "'=3'"]),
        ("", ["train..seed=3"], ["--set takes section.field=value", "'train..seed=3'"]),
        (
            "model: {layers: 2}",
            ["model.layers.deep=3"],
            ["--set model.layers.deep=3", "layers is not a section"],
        ),
        ("", ["model.layers=["], ["--set model.layers=[", "not valid YAML"]),
        ("", ["model.layres=3"], ["model.layres: unknown key", "did you mean layers?"]),
        ("", ["model=3"], ["model: must be a mapping", "got 3"]),
    ],
)
def test_mistakes_in_files_and_overrides(tmp_path, content, overrides, expected):
    path = tmp_path / "run.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    assert [part for part in expected if part not in str(caught.value)] == []


def test_a_folder_is_not_a_spec(tmp_path):
    with pytest.raises(SpecError, match="cannot read the spec .*: Is a directory"):
        load_spec(tmp_path)
