"""`innerloop reproduce goel2026`: what is trained for which output, and the smallest budget from end to end."""

import json
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import polars as pl
import pytest
from goel_frames import arm_rows
from test_reproduce import reproduce

from innerloop.papers.goel2026 import measured
from innerloop.papers.goel2026.matched import Arm, Setting
from innerloop.papers.goel2026.reproduce import missing
from innerloop.papers.goel2026.study import BUDGETS, BY_LAYER, Job, jobs


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
