"""Tables on disk: what is added comes back once, whatever happens in between, and conditions in SQL select from it."""

import os
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import contents, losses, parquet, row, value

from innerloop.study.sql import QueryError
from innerloop.study.store import SCHEMAS, Store, select


def test_a_run_comes_back_as_it_was_added(store):
    covariance = [[2.0, 0.5], [0.5, 1.0]]
    added = row("a", 0.25, task={"dim": 2, "input_covariance": covariance}, train={"seed": 3})
    store.add("runs", [added])
    (back,) = store.read("runs").to_dicts()
    assert {name: back[name] for name in added} == added
    assert {name for name in back if back[name] is None} == SCHEMAS["runs"].keys() - added.keys()


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_table_has_its_columns_before_and_after_the_first_row(store, table):
    assert store.read(table).schema == pl.Schema(SCHEMAS[table])
    assert len(store.read(table)) == 0
    store.add(table, [{"run": "a", "step": 1, "name": "loss"}])
    assert store.read(table).schema == pl.Schema(SCHEMAS[table])
    assert len(store.read(table)) == 1


def test_rows_of_several_additions_are_all_there(store):
    for start in (0, 3, 6):
        store.add("evaluations", [value(str(index), index) for index in range(start, start + 3)])
    assert losses(store) == {str(index): index for index in range(9)}


def test_tables_do_not_mix(store):
    store.add("evaluations", [value("a", 1)])
    store.add("runs", [row("b")])
    assert [store.read(table)["run"].to_list() for table in SCHEMAS] == [["b"], [], ["a"]]


def test_adding_nothing_writes_nothing(store):
    store.add("evaluations", [])
    assert contents(store.folder) == {}


@pytest.mark.parametrize(
    ("table", "key"),
    [("runs", ("run",)), ("history", ("run", "step")), ("evaluations", ("run", "name"))],
)
def test_a_row_added_again_replaces_the_one_of_its_key_only(store, table, key):
    number = {"runs": "seconds", "history": "seconds", "evaluations": "value"}[table]
    first = {"run": "a", "step": 1, "name": "loss"}
    second = first | {"run": "b", "step": 2, "name": "regret"}
    known = [{name: first[name] for name in key}, {name: second[name] for name in key}]
    store.add(table, [known[0] | {number: 1.0}, known[1] | {number: 2.0}])
    store.add(table, [known[0] | {number: 3.0}])
    rows = store.read(table).sort(*key).select(*key, number).to_dicts()
    assert rows == [known[0] | {number: 3.0}, known[1] | {number: 2.0}]


def test_a_new_row_that_lacks_a_value_does_not_keep_the_old_one(store):
    store.add("runs", [row("a", 0.5)])
    store.add("runs", [row("a", None) | {"status": "failed"}])
    assert store.read("runs").select("status", "adjusted_loss").rows() == [("failed", None)]


def test_the_highest_number_wins_whatever_the_clock_says(store):
    for number in range(3):
        store.add("evaluations", [value("a", number)])
    for age, file in enumerate(parquet(store)):
        os.utime(file, (2e9 - 1e6 * age,) * 2)
    times = [file.stat().st_mtime for file in parquet(store)]
    assert times == sorted(times, reverse=True)
    assert losses(store) == {"a": 2}
    store.compact("evaluations")
    assert losses(store) == {"a": 2}


@pytest.mark.parametrize("name", ["it's", "a[1]", "a*", "a?b", "[!a]", "two words", "{a,b}", "Größe"])
def test_a_folder_may_have_any_name(tmp_path, name):
    store, other = Store(tmp_path / name), Store(tmp_path / "a1")
    other.add("evaluations", [value("x", 9)])
    store.add("evaluations", [value("a", 1), value("b", 2)])
    store.add("evaluations", [value("a", 3)])
    assert losses(store) == {"a": 3, "b": 2}
    store.compact("evaluations")
    assert losses(store) == {"a": 3, "b": 2}


@pytest.fixture
def three(store) -> Store:
    store.add("runs", [row("diag", 0.1, model={"kind": "diag", "layers": 2})])
    store.add("runs", [row("full", 0.2, model={"kind": "full"}, train={"seed": 5, "learning_rate": 0.1})])
    store.add("runs", [row("gd", None, model={"kind": "gd++", "layers": 2}) | {"status": "failed"}])
    return store


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, {"diag", "full", "gd"}),
        ("true", {"diag", "full", "gd"}),
        ("false", set()),
        ("model.kind = 'diag'", {"diag"}),
        ("model.layers = 2 and status = 'done'", {"diag"}),
        ("model.layers = 2 or train.seed = 5", {"diag", "full", "gd"}),
        ("train.learning_rate is not null", {"full"}),
        ("adjusted_loss < 0.15", {"diag"}),
        ("not adjusted_loss < 0.15", {"full"}),
        ("adjusted_loss is null", {"gd"}),
        ("run like '%g%'", {"diag", "gd"}),
        ("model.kind in ('gd++', 'full')  -- a remark", {"full", "gd"}),
        ("adjusted_loss = (select 0.1)", {"diag"}),
    ],
)
def test_a_condition_selects_its_rows(three, where, expected):
    assert set(three.query("runs", where)["run"]) == expected


def test_a_condition_sees_a_run_s_newest_row_only(three):
    three.add("runs", [row("diag", 0.3, model={"kind": "diag", "layers": 7})])
    assert len(three.query("runs", "model.layers = 2 and model.kind = 'diag'")) == 0
    assert three.query("runs", "model.layers = 7")["adjusted_loss"].to_list() == [0.3]


WRONG = {
    "unknown column": ("losss = 1", '"losss" not found'),
    "unknown field": ("model.layres = 1", "layres"),
    "half a condition": ("adjusted_loss <", "syntax error"),
    "blank": ("  ", "syntax error"),
    "a remark": ("-- nothing", "syntax error"),
    "text for a number": ("adjusted_loss = 'low'", "Could not convert string 'low'"),
    "no truth": ("run", "BOOL"),
    "an aggregate": ("count(*) > 1", "cannot contain aggregates"),
    "unknown table": ("adjusted_loss < (select max(x) from y)", "Table with name y does not exist"),
    "unknown function": ("best(adjusted_loss)", "Function with name best does not exist"),
    "a second statement": ("true; drop table x", 'at or near ";"'),
    "a closed bracket": ("run = 'a') union (select 1", "same number of result columns"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_condition_is_refused_in_one_line_with_the_reason(three, name):
    where, reason = WRONG[name]
    with pytest.raises(QueryError) as caught:
        three.query("runs", where)
    message = str(caught.value)
    assert message.startswith(f"where: {where!r} is not a condition on the runs: ")
    assert reason in message
    assert "\n" not in message


def test_a_wrong_condition_is_refused_when_there_are_no_rows_too(store):
    assert len(store.query("runs", "model.kind = 'diag'")) == 0
    with pytest.raises(QueryError, match="losss"):
        store.query("runs", "losss = 1")


def test_a_frame_is_asked_as_a_table_is(three):
    frame = three.read("runs")
    assert select(frame, "model.kind = 'diag'")["run"].to_list() == ["diag"]
    assert select(frame, None).sort("run").equals(frame.sort("run"))
    with pytest.raises(QueryError, match="losss"):
        select(frame, "losss = 1")


@settings(max_examples=20)
@given(
    st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from("abcd"), st.integers(0, 99), min_size=1), st.just("compact")
        ),
        max_size=8,
    )
)
def test_a_table_is_a_dictionary_that_is_updated(actions):
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for action in actions:
            if isinstance(action, str):
                store.compact("evaluations")
            else:
                store.add("evaluations", [value(run, number) for run, number in action.items()])
                expected |= action
        assert losses(store) == expected


def test_of_two_rows_of_one_key_in_one_addition_the_last_stays(tmp_path):
    store = Store(tmp_path)
    store.add("evaluations", [{"run": "a", "name": "regret", "value": value} for value in (1.0, 2.0)])
    assert store.read("evaluations")["value"].to_list() == [2.0]
