"""Studies: which runs the axes make, their names, which train together, and what a user is told about a mistake."""

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.study import StudySpec, make_plan, parse_spec
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


def test_more_workers_promise_less_time_until_there_are_no_more_groups():
    plan = plan_of({"train.seed": {"range": [4]}})
    one, two, four, many = (plan.seconds(workers) for workers in (1, 2, 4, 64))
    assert (one, many) == pytest.approx((2 * two, four))
    assert one == pytest.approx(4 * four)
