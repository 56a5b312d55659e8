"""The shipped models: each is what its file says, and as good as its file says."""

import numpy as np
import polars as pl
import pytest

import innerloop as il
from innerloop.evaluation import evaluate_many
from innerloop.shipped import names

SEQUENCES = 32_768  # fresh ones, of another seed than the files'


def by_law() -> dict[str, list[str]]:
    laws: dict[str, list[str]] = {}
    for name, law in il.pretrained().select("name", "noise").iter_rows():
        laws.setdefault(law, []).append(name)
    return laws


@pytest.mark.parametrize("law", sorted(by_law()))
def test_losses_are_those_of_the_files(law):
    """Within four standard errors of the difference of two independent draws."""
    shipped = {name: il.pretrained(name) for name in by_law()[law]}
    task = next(iter(shipped.values())).task
    found = evaluate_many(
        {name: each.model for name, each in shipped.items()},
        task,
        sequences=SEQUENCES,
        seed=1,
        per_layer=False,
    )
    for name, each in shipped.items():
        for quantity in ("adjusted_loss", "floor", "regret"):
            stored, fresh = each.results[quantity], getattr(found[name], quantity)
            error = np.hypot(stored["se"], fresh.standard_error)
            assert abs(fresh.value - stored["value"]) <= 4 * error, (name, quantity)
        assert found[name].not_finite == each.results["not_finite"] == 0


def test_a_model_is_what_its_name_says():
    for name in names():
        shipped = il.pretrained(name)
        kind, *one_head, layers, noise = name.split("-")
        assert shipped.model.kind == kind and shipped.model.layers == int(layers)
        assert (shipped.model.kind == "diag" and shipped.model.heads == 1) == bool(one_head)
        law = shipped.spec.task.noise
        assert noise == law.replace("(0,", "").replace("(", "").replace(")", "").replace(",", "")
        assert {"command", "git_revision", "version", "seconds"} <= set(shipped.provenance)
        np.testing.assert_allclose(shipped.model.label_scale, shipped.task.label_variance**-0.5, rtol=1e-5)


def test_the_table_has_a_row_for_each():
    table = il.pretrained()
    assert isinstance(table, pl.DataFrame)
    assert tuple(table["name"]) == names()
    assert {"diag-7-uniform5", "diag-1h-7-uniform5", "diag-4-uniform5", "diag-3-uniform5"} <= set(names())
    # Adjusted loss is regret above the floor, and no model is below it.
    np.testing.assert_allclose(table["adjusted_loss"], table["floor"] + table["regret"], rtol=1e-9)
    assert (table["regret"] > 0).all()


def test_deeper_models_of_a_training_are_better():
    table = il.pretrained().sort("layers")
    for _, several in table.group_by("kind", "heads", "noise"):
        assert several["adjusted_loss"].is_sorted(descending=True)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="no shipped model 'diag-7-unifrom5'; did you mean diag-7-uniform5"):
        il.pretrained("diag-7-unifrom5")
