"""Studies: which runs the axes make, their names, which train together, and what a user is told about a mistake."""

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.study import SpecError, StudySpec, load_study_spec, make_plan, parse_spec
from innerloop.study.plan import Plan, shape

ADAM = {"optimizer": "adam"}


def plan_of(axes: dict, base: dict | None = None, *, when=(), skip=(), **options) -> Plan:
    mapping = {"axes": axes, "base": base or {}, "when": list(when), "skip": list(skip)}
    return make_plan(StudySpec.model_validate(mapping), **options)


def values(plan: Plan, *fields: str) -> list:
    """Of each run, the value of one field, or the tuple of several, as its spec has them."""
    rows = []
    for run in plan.runs:
        spec = run.spec.model_dump()
        rows.append(tuple(spec[section][name] for section, name in (field.split(".") for field in fields)))
    return [row[0] for row in rows] if len(fields) == 1 else rows


def sizes(plan: Plan) -> list[int]:
    return [len(group.runs) for group in plan.groups]


def written(folder, text: str, name: str = "mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def message_of(path) -> str:
    with pytest.raises(SpecError) as caught:
        load_study_spec(path)
    return str(caught.value)


# --- axes


def test_a_list_gives_its_values_in_order():
    assert values(plan_of({"model.layers": [3, 1, 2]}), "model.layers") == [3, 1, 2]


@pytest.mark.parametrize("numbers", [[3], [2, 5], [0, 9, 4], [5, 0, -2]])
def test_a_range_is_python_s(numbers):
    plan = plan_of({"train.seed": {"range": numbers}})
    assert values(plan, "train.seed") == list(range(*numbers))


def test_a_geometric_axis_has_both_ends_and_equal_ratios():
    plan = plan_of({"train.learning_rate": {"geometric": [0.001, 1, 4]}}, {"train": ADAM})
    assert values(plan, "train.learning_rate") == [0.001, 0.01, 0.1, 1]


def test_a_geometric_axis_may_fall_and_reads_what_yaml_takes_for_text():
    """YAML 1.1 reads 1e-2 as text."""
    plan = plan_of({"train.learning_rate": {"geometric": [1, "1e-2", 3]}}, {"train": ADAM})
    assert values(plan, "train.learning_rate") == [1, 0.1, 0.01]


def test_zipped_fields_go_together():
    points = [["diag", 2], ["gd++", 1], ["full", 3]]
    plan = plan_of({"model.kind, model.heads": points})
    assert values(plan, "model.kind", "model.heads") == [tuple(point) for point in points]
    assert plan.runs[1].coordinates == {"model.kind": "gd++", "model.heads": 1}


def test_the_runs_are_the_product_in_the_order_written():
    heads, seeds, layers = [["diag", 2], ["gd++", 1]], range(2, 5), [4, 1]
    axes = {"model.kind, model.heads": heads, "train.seed": {"range": [2, 5]}, "model.layers": layers}
    expected = [
        (kind, head, seed, layer) for (kind, head), seed, layer in itertools.product(heads, seeds, layers)
    ]
    assert values(plan_of(axes), "model.kind", "model.heads", "train.seed", "model.layers") == expected
    turned = dict(reversed(axes.items()))
    expected = [(layer, seed, *point) for layer, seed, point in itertools.product(layers, seeds, heads)]
    assert values(plan_of(turned), "model.layers", "train.seed", "model.kind", "model.heads") == expected


def test_without_axes_there_is_one_run_the_base():
    base = {"model": {"kind": "gd++", "layers": 2}, "train": {"seed": 7}}
    (run,) = plan_of({}, base).runs
    assert run.spec == parse_spec(base)


def test_an_axis_leaves_the_rest_of_the_base_as_it_is():
    base = {"model": {"layers": 2, "heads": 3}, "train": {"seed": 7}}
    plan = plan_of({"model.layers": [1, 5]}, base)
    assert [run.spec for run in plan.runs] == [
        parse_spec({"model": {"layers": layers, "heads": 3}, "train": {"seed": 7}}) for layers in (1, 5)
    ]
    assert base == {"model": {"layers": 2, "heads": 3}, "train": {"seed": 7}}


# --- when and skip


def test_when_sets_fields_of_the_runs_that_match_only():
    plan = plan_of(
        {"model.kind": ["full", "diag"], "model.layers": [1, 2, 3]},
        when=[{"if": {"model.kind": "full", "model.layers": [2, 3]}, "set": {"train.batch": 64}}],
    )
    assert values(plan, "train.batch") == [512, 64, 64, 512, 512, 512]


def test_of_two_cases_that_match_the_later_wins_and_it_sees_what_the_first_has_set():
    plan = plan_of(
        {"train.seed": [0, 1]},
        when=[
            {"if": {"train.seed": 1}, "set": {"model.layers": 2, "train.batch": 8}},
            {"if": {"model.layers": 2}, "set": {"train.batch": 16}},
        ],
    )
    assert values(plan, "model.layers", "train.batch") == [(4, 512), (2, 16)]


def test_what_a_pattern_names_and_the_study_does_not_has_its_default():
    case = {"if": {"model.kind": "diag", "train.objective": "bayes"}, "set": {"train.batch": 8}}
    plan = plan_of({"train.seed": [0, 1]}, when=[case])
    assert values(plan, "train.batch") == [8, 8]


def test_skip_leaves_out_what_matches_all_of_a_pattern():
    kinds, layers = ["diag", "gd++"], [1, 2, 3, 4]
    plan = plan_of(
        {"model.kind": kinds, "model.layers": layers},
        skip=[{"model.kind": "gd++", "model.layers": [3, 4]}, {"model.layers": 1, "model.kind": "diag"}],
    )
    left = [("diag", 2), ("diag", 3), ("diag", 4), ("gd++", 1), ("gd++", 2)]
    assert values(plan, "model.kind", "model.layers") == left


# --- the file


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


# --- names


def test_names_say_what_the_axes_change():
    plan = plan_of(
        {"model.layers": [1, 2], "train.learning_rate": [0.5, 1e-05]}, {"train": {"optimizer": "adam"}}
    )
    assert [run.name for run in plan.runs] == [
        f"diag-{layers}l-d10-n20-uniform-0-5-seed0-learning_rate-{rate}"
        for layers in (1, 2)
        for rate in ("0.5", "1e-05")
    ]


def test_runs_whose_names_would_be_the_same_get_different_ones():
    eye, twice = [[1, 0], [0, 1]], [[2, 0], [0, 2]]
    plans = [
        plan_of({"train.learning_rate": [0.10000001, 0.10000002]}, {"train": ADAM}),
        plan_of({"task.noise": ["uniform(0,5)", "uniform(0,5.0000001)"]}),
        plan_of({"task.input_covariance": [None, eye, twice]}, {"task": {"dim": 2}}),
    ]
    for plan in plans:
        names = [run.name for run in plan.runs]
        assert len(set(names)) == len(names) > 1
        assert [name for name in names if not re.fullmatch(r"[\w.-]+", name)] == []


# --- groups


@pytest.mark.parametrize(
    "axis",
    [
        {"train.seed": [0, 1, 2]},
        {"train.data_seed": [0, 1, 2]},
        {"train.learning_rate": [0.1, 0.2, 0.3]},
        {"model.init_scale": [0.5, 1, 2]},
        {"task.noise": ["uniform(0,5)", "uniform(0,4)", "uniform(1,2)"]},
        {"task.noise": ["categorical(1,3)", "categorical(2,3)", "categorical(0.5,9)"]},
        {"evaluate.sequences": [10, 20, 30]},
    ],
    ids=str,
)
def test_runs_that_differ_in_numbers_only_train_together(axis):
    plan = plan_of(axis, {"train": ADAM})
    assert sizes(plan) == [3]
    assert plan.groups[0].together


@pytest.mark.parametrize(
    "axis",
    [
        {"model.layers": [1, 2]},
        {"model.heads": [1, 2]},
        {"model.kind": ["diag", "full"]},
        {"task.dim": [2, 3]},
        {"task.context": [5, 6]},
        {"task.noise": ["fixed(1)", "categorical(1)"]},
        {"task.noise": ["uniform(1,3)", "categorical(1,3)"]},
        {"task.noise": ["categorical(1,3)", "categorical(1,3,5)"]},
        {"task.input_covariance": [None, [[1, 0], [0, 2]]]},
        {"train.steps": [10, 20]},
        {"train.batch": [8, 16]},
        {"train.objective": ["oracle", "bayes"]},
        {"train.optimizer": ["adam", "muon"]},
        {"train.temper": [1, 2]},
        {"train.precision": ["float32", "float64"]},
    ],
    ids=str,
)
def test_runs_whose_programs_differ_train_apart(axis):
    base = {"train": ADAM, "task": {"dim": 2}}
    plan = plan_of(axis, base)
    assert sizes(plan) == [1, 1]
    assert not any(group.together for group in plan.groups)


def test_a_default_written_out_does_not_set_runs_apart():
    plan = plan_of({"train.optimizer, train.seed": [[None, 0], ["muon", 1]]}, {"model": {"kind": "full"}})
    assert sizes(plan) == [2]


def test_a_second_order_run_is_always_alone():
    plan = plan_of({"train.seed": {"range": [5]}, "model.kind": ["diag", "gd++", "full"]})
    for group in plan.groups:
        kinds = {run.spec.model.kind for run in group.runs}
        assert kinds == {"full"} or len(group.runs) == 1
    assert sorted(sizes(plan)) == [1] * 10 + [5]
    assert shape(parse_spec({"train": {"optimizer": "levenberg-marquardt"}})) is None


@pytest.mark.parametrize(
    ("at_most", "workers", "expected"),
    [
        (64, 1, [10]),
        (10, 1, [10]),
        (9, 1, [5, 5]),
        (4, 1, [4, 3, 3]),
        (1, 1, [1] * 10),
        (64, 3, [4, 3, 3]),
        (64, 99, [1] * 10),
        (2, 3, [2] * 5),
    ],
)
def test_groups_are_equal_shares_no_larger_than_allowed(at_most, workers, expected):
    plan = plan_of({"train.seed": {"range": [10]}}, {"train": ADAM}, at_most=at_most, workers=workers)
    assert sizes(plan) == expected
    in_order = [run.name for group in plan.groups for run in group.runs]
    assert in_order == [run.name for run in plan.runs]


def without(spec, *fields: str) -> str:
    """All that a spec says but for some fields."""
    mapping = spec.model_dump(mode="json")
    for field in fields:
        section, _, name = field.partition(".")
        del mapping[section][name]
    return json.dumps(mapping)


@given(
    kinds=st.lists(st.sampled_from(["full", "diag", "gd++"]), min_size=1, unique=True),
    optimizer=st.sampled_from(["adam", "muon", None]),
    layers=st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
    scales=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=2, unique=True),
    at_most=st.integers(1, 9),
    workers=st.integers(1, 5),
)
def test_every_run_is_in_one_group_of_one_shape_and_a_name_of_its_own(
    kinds, optimizer, layers, seeds, scales, at_most, workers
):
    axes = {"model.kind": kinds, "train.seed": seeds, "model.layers": layers, "model.init_scale": scales}
    plan = plan_of(axes, {"train": {"optimizer": optimizer}}, at_most=at_most, workers=workers)
    names = [run.name for run in plan.runs]
    assert len(set(names)) == len(names) == len(kinds) * len(seeds) * len(layers) * len(scales)
    assert sorted(run.name for group in plan.groups for run in group.runs) == sorted(names)
    assert len({group.name for group in plan.groups}) == len(plan.groups)
    together = len(seeds) * len(scales)  # runs of a kind and depth
    for group in plan.groups:
        assert 1 <= len(group.runs) <= min(at_most, -(-together // min(workers, together)))
        assert len({without(run.spec, "train.seed", "model.init_scale") for run in group.runs}) == 1
        if len(group.runs) > 1:
            assert all(
                run.spec.train.resolved(run.spec.model.kind).optimizer != "levenberg-marquardt"
                for run in group.runs
            )


# --- mistakes

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


# --- how long


def test_more_workers_promise_less_time_until_there_are_no_more_groups():
    plan = plan_of({"train.seed": {"range": [4]}})
    one, two, four, many = (plan.seconds(workers) for workers in (1, 2, 4, 64))
    assert (one, many) == pytest.approx((2 * two, four))
    assert one == pytest.approx(4 * four)
