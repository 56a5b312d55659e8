"""`innerloop reproduce goel2026`: what its outputs say of known frames, and the smallest budget from end to end."""

import itertools
import json
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import polars as pl
import pytest
from test_reproduce import reproduce

from innerloop.papers.goel2026 import measured, outputs
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.findings import findings
from innerloop.papers.goel2026.matched import Arm, Setting
from innerloop.papers.goel2026.reproduce import missing
from innerloop.papers.goel2026.study import BUDGETS, BY_HEAD, BY_LAYER, Job, jobs

SEEDS = (42, 100, 7)


def as_published() -> pl.DataFrame:
    """Losses that fall by halves every evaluation for linear attention, and half as fast for softmax."""
    rows = [
        {
            "architecture": architecture,
            "layers": layers,
            "seed": seed,
            "step": step,
            "sequences_seen": 64 * step,
            "set": name,
            "position": position,
            "loss": (1.1 if name == "anisotropic" else 1.0) * (1 + seed / 1000) * 0.5 ** (step * rate / 100),
            "parameters": 1000 * layers,
        }
        for (architecture, rate), layers, seed, step, name, position in itertools.product(
            [("quadratic", 0.5), ("linear", 1.0)],
            [1, 3],
            SEEDS,
            range(0, 1001, 100),
            ["isotropic", "anisotropic"],
            [0, POINTS - 1],
        )
    ]
    return pl.DataFrame(rows)


def arm_rows(arm: Arm, end: float, validation: float) -> list[dict]:
    return [
        {
            "mixers": arm.mixers,
            "optimizer": arm.optimizer,
            "feature_map": arm.feature_map,
            "final_layer_norm": arm.final_layer_norm,
            "data": arm.data,
            "layers": arm.layers or 3,
            "learning_rate": rate,
            "seed": seed,
            "step": step,
            "sequences_seen": 16 * step,
            "set": name,
            "position": position,
            "loss": (1.0 if step == 0 else (validation if name == "validation" else end))
            * (1 + 0.01 * SEEDS.index(seed))
            * (1 + 9 * (rate != 0.01)),
            "chosen": rate == 0.01,
            "parameters": 10,
        }
        for (rate, seed), step, name, position in itertools.product(
            [(0.001, 42), *((0.01, seed) for seed in SEEDS)],
            [0, 50, 100],
            ["validation", "test", "noise"],
            range(POINTS),
        )
    ]


def on_equal_terms() -> pl.DataFrame:
    """Softmax is better by Adam, linear by Muon; without LayerNorm it would be better still."""
    arms = [
        (Arm("softmax"), 0.2, 0.21),
        (Arm("softmax", "muon"), 0.1, 0.3),  # the better test loss, which must not choose it
        (Arm("linear"), 0.5, 0.5),
        (Arm("linear", "muon"), 0.4, 0.4),
        (Arm("linear", "muon", final_layer_norm=False), 0.01, 0.01),
    ]
    return pl.DataFrame([row for arm, end, validation in arms for row in arm_rows(arm, end, validation)])


def test_the_last_losses_are_means_over_seeds_and_shifts_a_share():
    table = outputs._curves(as_published(), False).table
    assert table.select("layers", "architecture").rows() == [
        (1, "linear"),
        (1, "softmax"),
        (3, "linear"),
        (3, "softmax"),
    ]
    ends = np.array([1 + seed / 1000 for seed in SEEDS]) * 0.5**10
    first = table.row(0, named=True)
    assert first["loss"] == pytest.approx(ends.mean(), rel=1e-6)
    assert first["standard_error"] == pytest.approx(ends.std(ddof=1) / 3**0.5, rel=1e-5)
    assert first["lost_by_shifted_weights"] == pytest.approx(0.1, rel=1e-5)
    assert "published" not in table.columns
    assert outputs._curves(as_published(), True).table["published"].to_list() == [None, None, None, 0.0894]


def test_softmax_that_falls_half_as_fast_takes_twice_as_many_sequences():
    """To 90 %: 0.5^k <= 0.1 and the rest of the way, at the fourth evaluation and, as 0.5^(k/2), the seventh."""
    table = outputs._speed(as_published(), False).table
    assert table["layers"].to_list() == [1, 3]
    assert table["linear"].to_list() == [64 * 400] * 2 and table["softmax"].to_list() == [64 * 600] * 2
    assert table["ratio"].to_list() == table["95_%_from"].to_list() == [1.5, 1.5]


def test_what_has_not_left_the_plateau_has_no_ratio():
    """One layer as before, three layers ten times as slow: a loss of 0.5^(1/2) = 0.93 is 0.93, not 0.9, at the end."""
    frame = as_published().with_columns(
        loss=pl.when(pl.col("layers") == 3).then(pl.col("loss") ** 0.01).otherwise("loss")
    )
    table = outputs._speed(frame, False).table
    assert table["ratio"].to_list() == [1.5, None]
    assert "plateau" in outputs._speed(frame, False).caption
    found = findings(frame, on_equal_terms()).filter(
        group="Does linear attention converge faster, as published?"
    )
    ends = frame.filter(layers=3, set="isotropic", position=POINTS - 1).filter(
        pl.col("step") == pl.col("step").max().over("architecture")
    )
    least = ends.group_by("architecture").agg(pl.col("loss").mean())["loss"].min()
    assert dict(found.select("what", "measured").iter_rows()) == {
        "1 layer": pytest.approx(1.5),
        "3 layers: loss at the end": pytest.approx(least),
    }
    assert least > 0.9


def test_arms_are_chosen_on_validation_and_compared_without_more_changes():
    best = outputs._best_arms(on_equal_terms())
    assert set(best.select("method", "optimizer").unique().rows()) == {
        ("softmax", "adam"),
        ("linear", "muon"),
    }
    table = outputs._shifts(on_equal_terms(), False).table
    assert set(table["shift"]) == {"test", "noise"}
    value = table.filter(method="softmax", shift="noise")["value"].item()
    assert value == pytest.approx(0.2 * 1.01, rel=1e-6)


def test_the_table_on_equal_terms_has_every_arm_once_best_first():
    table = outputs._matched(on_equal_terms(), False).table
    assert table["test_loss"].to_list() == sorted(table["test_loss"].to_list()) and len(table) == 5
    assert set(table["learning_rate"]) == {0.01} and set(table["seeds"]) == {3}
    assert table.row(0, named=True)["final_layer_norm"] is False


def test_every_depth_and_optimiser_has_a_panel():
    more = pl.DataFrame(arm_rows(Arm("softmax", "muon", layers=6), 0.02, 0.02))
    picture = outputs._matched(pl.concat([on_equal_terms(), more]), False).picture
    assert picture is not None
    titles = [axes.get_title(loc="left") for axes in picture[0].axes]
    assert titles == ["3 layers, Adam", "3 layers, Muon", "6 layers, Muon"]


def test_the_floor_by_position_is_that_of_least_squares():
    table = outputs._positions(on_equal_terms(), False).table
    own = table.filter(method="linear")
    assert own["least_squares"].to_list() == [max(0.0, 1 - k / DIM) for k in range(POINTS)]


def test_findings_compare_what_differs_in_attention_alone():
    """Softmax ends at 0.2 and 0.1, linear at 0.5 and 0.4, a hybrid at half of the better; at six layers linear is ahead."""
    arms = [
        (Arm("softmax,linear,linear", "muon"), 0.05, 0.05),
        (Arm("softmax", "muon", layers=6), 0.2, 0.2),
        (Arm("linear", "muon", layers=6), 0.1, 0.1),
    ]
    more = pl.DataFrame([row for arm, end, validation in arms for row in arm_rows(arm, end, validation)])
    found = findings(as_published(), pl.concat([on_equal_terms(), more]))
    groups = {group: own for (group,), own in found.group_by("group", maintain_order=True)}
    measured = {group: dict(own.select("what", "measured").iter_rows()) for group, own in groups.items()}
    assert measured["Does linear attention converge faster, as published?"] == {
        "1 layer": pytest.approx(1.5),
        "3 layers": pytest.approx(1.5),
    }
    # From 1 to its end a curve goes in one step of 50: at 0.5 and 0.4, where linear ends, softmax is sooner.
    assert measured["Which attention is sooner at the loss that both reach?"] == {
        "3 layers, Adam, fresh sequences": pytest.approx((1 - 0.51) / (1 - 0.2), rel=0.03),
        "3 layers, Muon, fresh sequences": pytest.approx((1 - 0.408) / (1 - 0.1), rel=0.03),
        "6 layers, Muon, fresh sequences": pytest.approx((1 - 0.1) / (1 - 0.204), rel=0.03),
    }
    better = measured["Which attention is better on equal terms?"]
    assert better == {
        "3 layers, Adam, fresh sequences": pytest.approx(0.4),
        "3 layers, Muon, fresh sequences": pytest.approx(0.25),
        "6 layers, Muon, fresh sequences": pytest.approx(2.0),
    }
    answer = groups["Which attention is better on equal terms?"]["answer"][0]
    assert "Of 3 intervals 1 are above 1, 2 below, and 0 hold 1." in answer
    assert measured["Does a hybrid beat both?"] == {
        "3 layers, Muon: softmax,linear,linear against softmax": pytest.approx(0.5)
    }
    assert measured["Does Muon help a decoder?"] == {
        "3 layers, softmax": pytest.approx(2.0),
        "3 layers, linear": pytest.approx(1.25),
    }
    # Of the paper's frame, whose seeds differ otherwise, three layers; the optimiser of the least validation loss.
    seeds = np.mean([1 + seed / 1000 for seed in SEEDS]) / 1.01
    assert measured["How far below the paper's training does it end?"] == {
        "3 layers, softmax, Adam": pytest.approx(seeds * 0.5**5 / 0.2),
        "3 layers, linear, Muon": pytest.approx(seeds * 0.5**10 / 0.4),
    }
    below = groups["How far below the paper's training does it end?"]["note"][0]
    assert below.endswith("1600 sequences against 64000 draws")


def test_variants_are_held_against_the_arm_they_differ_from_in_one_thing():
    """Linear ends at 0.4 with Muon, 0.01 without LayerNorm: exp features halve it, the pool doubles it; with both changes
    there is nothing to hold it against, nor for a hybrid by head that has no plain twin."""
    arms = [
        (Arm("linear", "muon", "exp"), 0.2),
        (Arm("linear", "muon", data="pool"), 0.8),
        (Arm("linear", "muon", "exp", data="pool"), 0.1),
        (Arm("softmax", "adam", final_layer_norm=False), 0.2),
        (Arm("softmax:2+linear:2", "muon", final_layer_norm=False), 0.3),
    ]
    more = pl.DataFrame([row for arm, end in arms for row in arm_rows(arm, end, end)])
    found = findings(as_published(), pl.concat([on_equal_terms(), more]))
    own = found.filter(group="What do other features, no final LayerNorm and the pool change?")
    assert dict(own.select("what", "measured").iter_rows()) == {
        "3 layers, Muon, linear: no final LayerNorm": pytest.approx(0.025),
        "3 layers, Muon, linear: features exp": pytest.approx(0.5),
        "3 layers, Muon, linear: the published pool": pytest.approx(2.0),
        "3 layers, Adam, softmax: no final LayerNorm": pytest.approx(1.0),
    }
    assert "Of 4 intervals 1 are above 1, 2 below, and 1 hold 1." in own["answer"][0]


def test_a_learning_rate_at_the_end_of_three_is_said_to_be_there():
    """Of two rates each is an end, which says nothing."""
    both = [arm_rows(Arm(mixers, "muon"), 0.1, 0.1) for mixers in ("softmax", "linear")]
    added = [
        row | {"learning_rate": rate, "chosen": False}
        for rows, rate in zip(both, (0.1, 0.005), strict=True)
        for row in rows
        if row["learning_rate"] == 0.001
    ]
    two = pl.DataFrame(both[0] + both[1])
    for frame, said in [
        (two, "A grid of fewer than three rates brackets no optimum."),
        (pl.concat([two, pl.DataFrame(added)]), "1 of 2 chose an end of their grid"),
    ]:
        found = findings(as_published(), frame).filter(group="Which learning rates were chosen?")
        assert found["measured"].to_list() == [0.01, 0.01] and said in found["answer"][0]
    assert found["note"].to_list() == ["of 0.001, 0.01, 0.1", "of 0.001, 0.005, 0.01"]


def test_loss_against_depth_shows_what_has_several_depths_and_tabulates_all():
    more = pl.DataFrame(arm_rows(Arm("softmax", "muon", layers=6), 0.02, 0.02))
    drawn = outputs._depth(as_published(), pl.concat([on_equal_terms(), more]), True)
    rows = {(row["panel"], row["method"], row["layers"]): row for row in drawn.table.to_dicts()}
    assert len(rows) == len(drawn.table) == 4 + 5
    assert rows["on equal terms, Muon", "softmax", 6]["value"] == pytest.approx(0.02 * 1.01, rel=1e-6)
    assert rows["on equal terms, Adam", "softmax", 3]["value"] == pytest.approx(0.2 * 1.01, rel=1e-6)
    assert rows["as published", "softmax", 3]["published"] == 0.0894
    assert rows["as published", "linear", 3]["published"] is None
    assert drawn.picture is not None
    titles = [axes.get_title(loc="left") for axes in drawn.picture[0].axes]
    assert titles == ["as published", "on equal terms, Muon"]


def inside(arm: Arm, validation: float, **columns) -> pl.DataFrame:
    about = {**vars(arm), "layers": arm.layers or 3, "validation_loss": validation}
    frame = pl.DataFrame(columns)
    return frame.select(*(pl.lit(value).alias(name) for name, value in about.items()), pl.all())


def attention(arm: Arm, validation: float, kinds: tuple[str, ...], first: float) -> pl.DataFrame:
    """Every token has the weight `first` on the first, and shares the rest among the others and itself."""
    rows = [
        (
            layer,
            kind,
            token,
            attended,
            1.0 if token == 0 else first if attended == 0 else (1 - first) / token,
            0.01,
        )
        for layer, kind in itertools.product([1, 2], kinds)
        for token in range(2 * POINTS)
        for attended in range(token + 1)
    ]
    names = ["layer", "kind", "token", "attended", "weight", "standard_error"]
    return inside(arm, validation, **dict(zip(names, zip(*rows, strict=True), strict=True)))


def test_attention_is_of_the_arm_that_is_best_on_validation_and_kinds_stand_apart():
    frame = pl.concat(
        [
            attention(Arm("softmax"), 0.2, ("softmax",), 0.5),
            attention(Arm("softmax", "muon"), 0.3, ("softmax",), 0.9),
            attention(Arm("linear", feature_map="elu1"), 0.1, ("linear",), 0.9),
            attention(Arm(BY_HEAD), 0.2, ("softmax", "linear"), 0.4),
        ]
    )
    drawn = outputs._attention(frame, False)
    methods = ["softmax", "hybrid by head, softmax heads", "hybrid by head, linear heads"]
    assert drawn.table["method"].unique(maintain_order=True).to_list() == methods
    softmax = drawn.table.filter(method="softmax", layer=2, token=18, attended=0).row(0, named=True)
    assert (softmax["weight"], softmax["token_name"], softmax["attended_name"]) == (0.5, "x9", "x0")
    assert drawn.shown is not None and len(drawn.shown) == 3 * 2 * 3
    first = drawn.shown.filter(method="hybrid by head, linear heads", layer=1).row(0, named=True)
    assert (first["token"], first["attended"], first["weight"]) == ("x9", "x0", 0.4)
    assert drawn.picture is not None


def test_probes_name_the_nearest_number_of_steps():
    targets = ["gradient descent, 1 step", "gradient descent, 4 steps", "least squares", "label"]
    values = {(1, 0): 0.3, (1, 1): 0.5, (2, 0): 0.4, (2, 1): 0.2}  # by layer and target
    rows = [
        (
            examples,
            model,
            layer,
            target,
            values.get((layer, place), 0.1) if model == "trained" else 0.9,
            0.01,
            2.0,
            0.1,
        )
        for examples, model, layer, (place, target) in itertools.product(
            [3, 9], ["trained", "untrained"], [1, 2], enumerate(targets)
        )
    ]
    names = ["examples", "model", "layer", "target", "probe", "probe_se", "read_out", "read_out_se"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    frame = pl.concat([inside(Arm(BY_LAYER), 0.2, **columns), inside(Arm(BY_LAYER, "muon"), 0.1, **columns)])
    drawn = outputs._probes(frame, False)
    assert len(drawn.table) == len(rows) and set(drawn.table["method"]) == {"hybrid by layer"}
    assert drawn.shown is not None
    assert drawn.shown.select("examples", "layer", "nearest_steps", "distance", "least_squares").rows() == [
        (3, 1, 1, 0.3, 0.1),
        (3, 2, 4, 0.2, 0.1),
        (9, 1, 1, 0.3, 0.1),
        (9, 2, 4, 0.2, 0.1),
    ]
    assert drawn.picture is not None
    panels = [axes.get_title(loc="left") for axes in drawn.picture[0].axes]
    assert panels == ["hybrid by layer\n3 examples", "hybrid by layer\n9 examples"]


def test_hybrids_are_named_in_words():
    table = outputs._matched(
        pl.DataFrame([row for mixers in (BY_LAYER, BY_HEAD) for row in arm_rows(Arm(mixers), 0.5, 0.5)]),
        False,
    ).table
    assert set(table.select("method", "mixers").rows()) == {
        ("hybrid by layer", BY_LAYER),
        ("hybrid by head", BY_HEAD),
    }


def test_jobs_have_names_of_their_own_at_every_budget():
    for budget in BUDGETS.values():
        files = [file for job in jobs(budget) for file in job.files.values()]
        assert len(set(files)) == len(files)
        assert any(arm.mixers not in ("softmax", "linear") for arm in budget.arms)  # a hybrid
        for arm in budget.arms:
            jax.eval_shape(partial(budget.setting.model, arm), jax.random.key(0))
    assert Job(Arm(BY_LAYER, "muon")).files == {
        "matched": "matched-softmax_linear_linear-relu2-muon-fresh.parquet",
        "attention": "attention-softmax_linear_linear-relu2-muon-fresh.parquet",
        "probes": "probes-softmax_linear_linear-relu2-muon-fresh.parquet",
    }


def test_a_folder_with_losses_alone_lacks_what_is_inside_only(tmp_path):
    """As an older version left it."""
    all_jobs = jobs(BUDGETS["smoke"])
    for job in all_jobs:
        (tmp_path / f"{job.name}.parquet").touch()
    arms = [job for job in all_jobs if job.kind == "matched"]
    assert missing(all_jobs, ["curves", "matched"], tmp_path) == []
    assert missing(all_jobs, ["matched", "attention"], tmp_path) == arms
    for job in arms[1:]:
        (tmp_path / job.files["attention"]).touch()
    assert (
        missing(all_jobs, ["attention"], tmp_path) == arms[:1]
        and missing(all_jobs, ["probes"], tmp_path) == arms
    )


@pytest.mark.parametrize(
    "device, trained, looked_at, loss",
    [
        ("cpu", [((0.001, 0.01), (42,)), ((0.01,), (100, 7))], 1, 0.5),
        ("gpu", [((0.001, 0.01), (42, 100, 7))], 3, 0.505),
    ],
)
def test_the_learning_rate_is_chosen_with_one_seed_where_runs_take_turns_and_with_all_where_they_run_together(
    device, trained, looked_at, loss, tmp_path, monkeypatch
):
    asked = []

    def pretended(arm, setting, *, rates, seeds):
        asked.append((tuple(rates), tuple(seeds)))
        rows = [
            row for row in arm_rows(arm, 0.5, 0.5) if row["learning_rate"] in rates and row["seed"] in seeds
        ]
        losses = pl.DataFrame(rows).drop("chosen", "parameters")
        return SimpleNamespace(losses=losses, models=np.arange(len(rates) * len(seeds)), parameters=10)

    def looked_into(model, arm, budget, seed):
        asked.append((int(model), seed))
        return {kind: pl.DataFrame({"measured": [1.0]}) for kind in ("attention", "probes")}

    job, rates = Job(Arm("linear")), (0.001, 0.01)
    monkeypatch.setattr(measured, "train_arm", pretended)
    monkeypatch.setattr(measured, "_inside", looked_into)
    monkeypatch.setattr(Setting, "grid", lambda self, optimizer: rates)
    monkeypatch.setattr("jax.default_backend", lambda: device)
    measured.carry_out(job, BUDGETS["quick"], tmp_path)
    assert asked == [*trained, (looked_at, 42)]
    frames = {kind: pl.read_parquet(tmp_path / file) for kind, file in job.files.items()}
    assert set(frames["matched"].filter("chosen")["learning_rate"]) == {0.01}
    assert frames["probes"].rows() == [
        (*{**vars(job.what), "layers": 3}.values(), pytest.approx(loss), 1.0)
    ]  # with the mean validation loss of the seeds that chose


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder in which only the speeds were asked for."""
    folder = tmp_path_factory.mktemp("goel") / "out"
    return folder, reproduce("goel2026", "--budget", "smoke", "--only", "speed", "--out", folder)


def test_only_what_is_needed_is_trained_and_shown(smoke):
    folder, (code, _, err) = smoke
    assert code == 0, err
    assert {path.stem for path in (folder / "measured").iterdir()} == {
        "published-linear-1",
        "published-quadratic-1",
    }
    assert "speed; 2 of 4 programs and arms to train" in err
    page = (folder / "report.html").read_text()
    assert "How fast training is" in page and "On equal terms" not in page
    assert pl.read_csv(folder / "speed.csv")["layers"].to_list() == [1]


def test_going_on_trains_nothing_twice(smoke):
    folder, _ = smoke
    before = {path: path.stat().st_mtime_ns for path in (folder / "measured").iterdir()}
    code, _, err = reproduce("goel2026", "--budget", "smoke", "--only", "speed", "--out", folder)
    assert code == 2 and "already holds results" in err
    code, _, err = reproduce("goel2026", "--budget", "quick", "--only", "speed", "--out", folder, "--resume")
    assert code == 2 and "holds results of --budget smoke" in err
    code, _, err = reproduce("goel2026", "--budget", "smoke", "--only", "speed", "--out", folder, "--resume")
    assert code == 0 and "0 of 4 programs and arms to train" in err
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "measured").iterdir()}
    about = json.loads((folder / "budget.json").read_text())
    about["setting"]["steps"] += 1
    (folder / "budget.json").write_text(json.dumps(about))
    code, _, err = reproduce("goel2026", "--budget", "smoke", "--only", "speed", "--out", folder, "--resume")
    assert code == 2 and "holds results of --budget smoke with other settings" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "smal"), "--budget smal: unknown budget"),
        (("--only", "sped"), "--only sped: unknown output"),
        (("--engine", "ray"), "--engine ray is for vladymyrov2024"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    code, _, err = reproduce("goel2026", *arguments, "--out", tmp_path / "out")
    assert code == 2 and message in err and not (tmp_path / "out").exists()
