"""A study's file: its base and name, and every mistake in it, named with line and field."""

import pytest

from innerloop.study import SpecError, load_study_spec, make_plan, parse_spec


def written(folder, text: str, name: str = "mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def message_of(path) -> str:
    with pytest.raises(SpecError) as caught:
        load_study_spec(path)
    return str(caught.value)


def test_a_base_is_a_mapping_or_a_file_beside_the_study(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    written(folder, "model: {kind: gd++, layers: 2}\ntrain: {seed: 3}\n", "run.yaml")
    axes = "axes:\n  task.dim: [2, 3]\n"
    by_path, name = load_study_spec(written(folder, f"base: run.yaml\n{axes}"))
    inside, _ = load_study_spec(
        written(folder, f"base: {{model: {{kind: gd++, layers: 2}}, train: {{seed: 3}}}}\n{axes}")
    )
    assert make_plan(by_path) == make_plan(inside)
    assert [run.spec for run in make_plan(by_path).runs] == [
        parse_spec({"task": {"dim": dim}, "model": {"kind": "gd++", "layers": 2}, "train": {"seed": 3}})
        for dim in (2, 3)
    ]
    assert name == "mine"


def test_an_empty_base_file_is_the_default_run(tmp_path):
    written(tmp_path, "# nothing yet\n", "run.yaml")
    study, _ = load_study_spec(written(tmp_path, "base: run.yaml\n"))
    assert [run.spec for run in make_plan(study).runs] == [parse_spec({})]


def test_a_name_in_the_file_wins_over_the_file_s(tmp_path):
    assert load_study_spec(written(tmp_path, "name: depth.v2\naxes: {train.seed: [0]}\n"))[1] == "depth.v2"


def test_the_kept_source_makes_the_same_plan_without_the_base_s_file(tmp_path):
    written(tmp_path, "model: {kind: full}\ntrain: {batch: 32}\n", "run.yaml")
    text = (
        "base: run.yaml\naxes:\n  model.layers, train.seed: [[1, 0], [2, 3]]\n"
        "  train.learning_rate: {geometric: [0.001, 0.1, 3]}\n"
        "when:\n  - {if: {model.layers: 2}, set: {train.optimizer: adam}}\n"
        "skip:\n  - {model.layers: 1, train.learning_rate: 0.1}\n"
    )
    study, name = load_study_spec(written(tmp_path, text))
    plan = make_plan(study, name)
    (tmp_path / "run.yaml").unlink()
    again, name = load_study_spec(written(tmp_path, plan.source, "study.yaml"))
    assert len(plan.runs) == 5
    assert make_plan(again, name) == plan


# What is wrong: the file, the line to be named, and what else the message must say.
BAD = {
    "unknown field": (
        "base: {}\naxes:\n  model.layers: [1]\n  model.layres: [2]\n",
        4,
        ["axes.model.layres: unknown field", "did you mean model.layers?", "train.seed"],
    ),
    "unknown field of a zipped axis": (
        "axes:\n  model.layers: [1]\n\n  model.kind, model.head: [[diag, 1]]\n",
        4,
        ["axes.model.head: unknown field", "did you mean model.heads?"],
    ),
    "a section for a field": ("axes:\n  model: [1]\n", 2, ["axes.model: unknown field", "model.kind"]),
    "unlike any field": ("axes:\n  zzz: [1]\n", 2, ["axes.zzz: unknown field", "Allowed: task.kind"]),
    "unknown field in if": (
        "axes: {train.seed: [0]}\nwhen:\n  - if: {model.kinds: full}\n    set: {train.batch: 8}\n",
        3,
        ["when.model.kinds: unknown field", "did you mean model.kind?"],
    ),
    "unknown field in set": (
        "axes: {train.seed: [0]}\nwhen:\n  - if: {model.kind: full}\n    set: {train.bach: 8}\n",
        4,
        ["when.train.bach: unknown field", "did you mean train.batch?"],
    ),
    "unknown field in skip": (
        "axes: {train.seed: [0]}\nskip:\n  - {train.seed: 1}\n  - {train.sed: 1}\n",
        4,
        ["skip.train.sed: unknown field", "did you mean train.seed?"],
    ),
    "unknown field in the base": (
        "axes: {train.seed: [0]}\nbase:\n  model:\n    kind: diag\n    layres: 2\n",
        5,
        ["model.layres: unknown key", "did you mean layers?"],
    ),
    "unknown section in the base": ("base:\n  train: {}\n  taks: {}\n", 3, ["taks", "did you mean task?"]),
    "number for a section": (
        "base:\n  model: 3\naxes: {model.layers: [1]}\nskip: [{model.layers: 2}]\n",
        2,
        ["model: must be a mapping", "layers, heads", "got 3"],
    ),
    "nothing for a section": ("base:\n  train:\n", 2, ["train: must be a mapping", "got None"]),
    "range of a word": (
        "axes:\n  train.seed: {range: 4}\n",
        2,
        ["axes.train.seed", "{range: [from, to]}", "4"],
    ),
    "range of decimals": (
        "axes:\n  model.layers: [1]\n  train.seed: {range: [0, 2.5]}\n",
        3,
        ["axes.train.seed", "whole numbers", "[0, 2.5]"],
    ),
    "range without step": (
        "axes:\n  train.seed: {range: [0, 4, 0]}\n",
        2,
        ["axes.train.seed", "as Python's does", "[0, 4, 0]"],
    ),
    "range of truths": ("axes:\n  train.seed: {range: [true]}\n", 2, ["axes.train.seed", "[True]"]),
    "range of four": ("axes:\n  train.seed: {range: [0, 1, 2, 3]}\n", 2, ["axes.train.seed", "[0, 1, 2, 3]"]),
    "empty range": ("axes:\n  train.seed: {range: [5, 0]}\n", 2, ["axes.train.seed", "list of values", "[]"]),
    "range and geometric": (
        "axes:\n  train.seed: {range: [2], geometric: [1, 2, 2]}\n",
        2,
        ["axes.train.seed", "{geometric: [from, to, how many]}"],
    ),
    "another kind of axis": ("axes:\n  train.seed: {linear: [0, 1, 2]}\n", 2, ["axes.train.seed", "linear"]),
    "no kind of axis": ("axes:\n  train.seed: {}\n", 2, ["axes.train.seed", "got {}"]),
    "geometric from zero": (
        "base: {train: {optimizer: adam}}\naxes:\n  train.learning_rate: {geometric: [0, 1, 3]}\n",
        3,
        ["axes.train.learning_rate", "two positive numbers and how many", "[0, 1, 3]"],
    ),
    "geometric through zero": (
        "axes:\n  train.learning_rate: {geometric: [-1, 1, 3]}\n",
        2,
        ["axes.train.learning_rate", "positive", "[-1, 1, 3]"],
    ),
    "geometric to infinity": (
        "axes:\n  train.learning_rate: {geometric: [1, .inf, 3]}\n",
        2,
        ["axes.train.learning_rate", "positive", "inf"],
    ),
    "geometric of words": (
        "axes:\n  train.learning_rate: {geometric: [low, high, 3]}\n",
        2,
        ["axes.train.learning_rate", "positive", "['low', 'high', 3]"],
    ),
    "geometric of half a point": (
        "axes:\n  train.learning_rate: {geometric: [1, 2, 2.5]}\n",
        2,
        ["axes.train.learning_rate", "how many", "[1, 2, 2.5]"],
    ),
    "geometric of no points": (
        "axes:\n  train.learning_rate: {geometric: [1, 2, 0]}\n",
        2,
        ["axes.train.learning_rate", "how many", "[1, 2, 0]"],
    ),
    "one value for an axis": ("axes:\n  train.seed: 3\n", 2, ["axes.train.seed", "list of values", "got 3"]),
    "an axis without values": (
        "axes:\n  train.seed: []\n",
        2,
        ["axes.train.seed", "list of values", "got []"],
    ),
    "a zipped point too short": (
        "axes:\n  model.kind, model.heads:\n    - [diag, 1]\n    - [full]\n",
        2,
        ["axes.model.kind, model.heads", "list of 2 values", "['full']"],
    ),
    "a field on two axes": (
        "base: {}\naxes:\n  model.layers: [1]\n  model.kind, model.layers: [[diag, 2]]\n",
        2,
        ["axes: model.layers is on two axes"],
    ),
    "an axis twice": (
        "axes:\n  train.seed: [0]\n  model.layers: [1]\n  train.seed: [1]\n",
        4,
        ["train.seed", "line 2"],
    ),
    "an axis twice in a line": (
        "axes: {train.seed: [0], train.seed: [1]}\n",
        1,
        ["train.seed is there already"],
    ),
    "duplicate runs": (
        "base: {}\naxes:\n  train.seed: [0, 1, 0]\n",
        2,
        ["axes: {'train.seed': 0} and {'train.seed': 0} are the same run"],
    ),
    "duplicate runs in other words": (
        "axes:\n  task.noise: ['uniform(0,5)', ' Uniform(0.0, 5)']\n",
        1,
        ["'uniform(0,5)'", "are the same run"],
    ),
    "duplicate runs by when": (
        "axes:\n  train.seed: [0, 1]\nwhen:\n  - {if: {train.seed: 1}, set: {train.seed: 0}}\n",
        1,
        ["{'train.seed': 1} and {'train.seed': 0} are the same run"],
    ),
    "nothing left": (
        "axes:\n  train.seed: [0, 1]\nskip:\n  - {train.seed: [0, 1]}\n",
        3,
        ["skip: nothing is left to run"],
    ),
    "unknown key": (
        "base: {}\nbases: {}\naxis:\n  train.seed: [0]\n",
        3,
        ["axis: unknown key", "did you mean axes?"],
    ),
    "unknown key of a case": (
        "base: {}\nwhen:\n  - if: {model.kind: full}\n    sett: {}\n    set: {}\n",
        4,
        ["when.0.sett: unknown key", "did you mean set?", "Allowed: if, set"],
    ),
    "a case without if": ("when:\n  - {set: {train.seed: 0}}\n", 2, ["when.0.if: field required"]),
    "a case that is none": ("when:\n  - 3\n", 2, ["when.0: must be a mapping", "if, set", "got 3"]),
    "one case, not a list": (
        "base: {}\nwhen: {if: {}, set: {}}\n",
        2,
        ["when: input should be a valid list"],
    ),
    "a pattern that is none": (
        "base: {}\nskip:\n  - {train.seed: 0}\n  - 3\n",
        4,
        ["skip.1", "dictionary", "3"],
    ),
    "axes that are none": ("base: {}\naxes:\n", 2, ["axes", "dictionary", "None"]),
    "a name with a slash": ("base: {}\nname: a/b\n", 2, ["name", "'a/b'"]),
    "a base that is none": (
        "axes: {}\nbase: 3\n",
        2,
        ["base: must be a run spec or the path of its file", "3"],
    ),
    "base missing": ("axes: {}\n\nbase: gone.yaml\n", 3, ["base: cannot read", "gone.yaml", "No such file"]),
    "base a list": ("base: list.yaml\n", 1, ["base: ", "list.yaml must be a mapping", "got list"]),
    "base not YAML": ("axes: {}\nbase: open.yaml\n", 2, ["base: cannot read", "open.yaml", "expected"]),
    "base not text": ("axes: {}\nbase: bytes.yaml\n", 2, ["base: cannot read", "bytes.yaml", "utf-8"]),
    "value not allowed on an axis": (
        "base: {}\naxes:\n  train.seed: [0]\n  model.layers: [1, 2, 0]\n",
        4,
        ["model.layers", "greater than or equal to 1", "got 0", "train.seed=0, model.layers=0"],
    ),
    "value not allowed on a zipped axis": (
        "axes:\n  train.seed: [0]\n  model.kind, model.layers: [[diag, 2], [dense, 1]]\n",
        3,
        ["model.kind", "'full', 'diag' or 'gd++'", "'dense'", "model.kind=dense, model.layers=1"],
    ),
    "value not allowed in the base": (
        "axes: {train.seed: [0]}\nbase:\n  model: {layers: 2}\n  train:\n    batch: 0\n",
        5,
        ["train.batch", "greater than or equal to 1", "got 0"],
    ),
    "value not allowed in when": (
        "axes:\n  train.batch: [8]\nwhen:\n  - if: {train.batch: 8}\n    set:\n"
        "      model.layers: 2\n      train.batch: 0\n",
        7,
        ["train.batch", "greater than or equal to 1", "got 0", "train.batch=8"],
    ),
    "values that do not go together": (
        "axes:\n  train.seed: [0]\n  model.kind: [gd++]\n  model.heads: [1, 2]\n",
        3,
        ["model: heads must be 1 for kind gd++", "model.kind=gd++, model.heads=2"],
    ),
    "learning rate of levenberg-marquardt": (
        "base: {model: {kind: diag}}\naxes:\n  train.learning_rate: [0.1]\n",
        3,
        ["train.learning_rate is for adam and muon", "train.optimizer", "train.learning_rate=0.1"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_named_with_its_line_and_field(name, tmp_path):
    text, line, expected = BAD[name]
    written(tmp_path, "- 1\n", "list.yaml")
    written(tmp_path, "model: [\n", "open.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x80")
    path = written(tmp_path, text)
    message = message_of(path)
    lines = [part for part in message.splitlines() if part.startswith(f"{path}, line {line}: ")]
    assert len(lines) >= 1, message
    assert [part for part in expected if part not in lines[-1]] == []


def test_every_mistake_in_the_keys_is_named_at_once(tmp_path):
    path = written(tmp_path, "name: a b\naxis: {}\nskipp: []\n")
    assert [text.split(": ")[:2] for text in message_of(path).splitlines()] == [
        [f"{path}, line 1", "name"],
        [f"{path}, line 2", "axis"],
        [f"{path}, line 3", "skipp"],
    ]


def test_a_line_is_counted_past_comments_and_blank_lines(tmp_path):
    for before in (0, 1, 30):
        text = "# depth\n\n" * before + "axes:\n  # of the model\n  model.layres: [1]\n"
        path = written(tmp_path, text)
        number = text.splitlines().index("  model.layres: [1]") + 1
        assert f"{path}, line {number}: axes.model.layres" in message_of(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ["cannot read the study", "No such file"]),
        (b"\xff\xfe\x80", ["cannot read the study", "utf-8"]),
        (b"axes: {train.seed: [0]}\nskip: [\n", ["is not valid YAML (line 3)"]),
        (b"axes:\n  train.seed: [0]\n train.batch: [8]\n", ["is not valid YAML (line 3)"]),
        (b"name: 2026-13-45\n", ["cannot read the study", "month"]),
        (b"- axes\n", ["must be a mapping with the keys name, base, axes, when, skip", "got list"]),
        (b"", ["must be a mapping", "got NoneType"]),
    ],
    ids=["missing", "not text", "not YAML", "bad indentation", "no date", "a list", "empty"],
)
def test_a_file_that_is_no_study_is_named(content, expected, tmp_path):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    message = message_of(path)
    assert [part for part in [str(path), *expected] if part not in message] == []
