"""`innerloop reproduce vladymyrov2024`: the smallest budget from end to end, once, and what its folder then says."""

import io
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import polars as pl
import pytest

from innerloop import cli
from innerloop.evaluation import evaluate
from innerloop.papers.vladymyrov2024.measured import parts_of
from innerloop.papers.vladymyrov2024.outputs import OUTPUTS
from innerloop.papers.vladymyrov2024.printed import table_1
from innerloop.papers.vladymyrov2024.study import BUDGETS, DEPTHS, PAPERS, Entry, candidates, plan_of
from innerloop.study import load_run

FIGURES = [
    "figure1",
    "figure2",
    "figure2_depths",
    "figure3",
    "figure4",
    "figure5",
    "figure6",
    "figure7_gdpp",
    "figure7_diag",
    "figure7_full",
    "regret",
    "theorems_5_1",
    "theorems_5_2",
    "mechanisms_ablations",
    "mechanisms_output_scale",
    "mechanisms_step_sizes",
]
TABLE = tuple(f"table1.{ending}" for ending in ("csv", "md", "tex", "html"))


def reproduce(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command in this process; it trains and measures in others."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["innerloop", "reproduce", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def figure4(tmp_path_factory) -> Path:
    """A folder in which only Figure 4 was asked for."""
    folder = tmp_path_factory.mktemp("reproduce") / "out"
    code, _, err = reproduce("vladymyrov2024", "--budget", "smoke", "--only", "figure4", "--out", folder)
    assert code == 0, err
    trained = {path.name for path in (folder / "runs").iterdir()}
    made = {path.name for path in folder.glob("*.p*")}
    (folder / "first").write_text("\n".join([*sorted(trained), "", *sorted(made)]))
    return folder


@pytest.fixture(scope="module")
def everything(figure4) -> Path:
    """The same folder, gone on with for all outputs."""
    code, out, err = reproduce("vladymyrov2024", "--budget", "smoke", "--out", figure4, "--resume")
    assert code == 0, err
    assert out.startswith("Table 1: ")
    return figure4


def test_only_trains_and_draws_what_it_needs(figure4):
    trained, made = (part.split() for part in (figure4 / "first").read_text().split("\n\n"))
    assert trained == ["full-1l-d10-n20-categorical-1-3-seed0"]
    assert made == ["figure4.pdf", "figure4.png"]
    assert (figure4 / "study.yaml").read_text() == plan_of("smoke").source


def test_every_file_is_there_and_on_the_page(everything):
    page = (everything / "report.html").read_text()
    for name in FIGURES:
        assert (everything / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (everything / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert page.count(f'<figure id="{name}">') == 1
    assert all((everything / name).stat().st_size > 100 for name in TABLE)
    assert all(f'id="section-{name}"' in page for name in OUTPUTS)
    assert '<table class="table1">' in page


def test_entries_are_what_evaluate_says_of_the_stored_models(everything):
    """On the same sequences, so to rounding: programs of several models differ by 1e-12 from those of one."""
    table = pl.read_csv(everything / "table1.csv")
    shown = {"diag": "DIAG (one head)", "full": "FULL"}
    runs = candidates(plan_of("smoke").runs, BUDGETS["smoke"])
    checked = [
        Entry("uniform(0,5)", "diag", 1, 0),  # a depth that the run of two layers passed
        Entry("categorical(1,3)", "full", 1, 0),
    ]
    for entry in checked:
        run = load_run(everything / "runs" / runs[entry][0])
        judged = evaluate(
            run.exact_by_depth[entry.layers], run.spec.task.build(), sequences=BUDGETS["smoke"].sequences
        )
        row = table.filter(method=shown[entry.method], layers=entry.layers)
        assert row[entry.problem].item() == pytest.approx(judged.adjusted_loss.value, rel=1e-9)
        assert row[f"{entry.problem} s.e."].item() == pytest.approx(
            judged.adjusted_loss.standard_error, rel=1e-6
        )


def test_theorems_hold_for_the_trained_models(everything):
    checks = pl.read_csv(everything / "theorems.csv")
    assert set(checks["theorem"]) == {
        *("Theorem 4.1", "Theorem 4.2", "Theorem 5.1", "Theorem 5.2", "Lemma 4.3", "Lemma 4.4")
    }
    assert checks["holds"].all()


def test_what_is_lost_is_made_again_the_same(everything):
    """A measured file, and a run of which nothing is left."""
    before = (everything / "table1.csv").read_bytes()
    lost = everything / "runs" / "full-1l-d10-n20-categorical-1-3-seed0"
    model = (lost / "model.npz").read_bytes()
    shutil.rmtree(lost)
    (everything / "measured" / "losses-categorical-1-3.parquet").unlink()
    code, _, err = reproduce(
        "vladymyrov2024", "--budget", "smoke", "--only", "table1", "--out", everything, "--resume"
    )
    assert code == 0, err
    assert (lost / "model.npz").read_bytes() == model
    assert (everything / "table1.csv").read_bytes() == before


def test_an_existing_folder_is_one_error_without_resume(figure4):
    code, _, err = reproduce("vladymyrov2024", "--budget", "smoke", "--out", figure4)
    assert code == 2 and "already holds a study; go on with it by --resume" in err
    code, _, err = reproduce("vladymyrov2024", "--budget", "quick", "--out", figure4, "--resume")
    assert code == 2 and "holds another study" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vladymyrov2042"], "vladymyrov2042: unknown paper; did you mean vladymyrov2024?"),
        (["vladymyrov2024", "--only", "table1,figure9"], "--only figure9: unknown output; did you mean"),
        (["vladymyrov2024", "--only", ""], "--only : unknown output"),
        (["vladymyrov2024", "--budget", "fast"], "--budget fast: unknown budget"),
        (["vladymyrov2024", "--engine", "slurm"], "--engine must be local or ray, got 'slurm'"),
    ],
)
def test_a_wrong_name_is_one_error_before_anything_is_made(arguments, message, tmp_path):
    code, out, err = reproduce(*arguments, "--out", tmp_path / "out")
    assert code == 2 and message in err and "Traceback" not in err and out == ""
    assert not (tmp_path / "out").exists()


def test_the_full_plan_is_the_papers_table():
    table = table_1().drop_nulls("layers")
    published = {(row["noise"], row["method"], row["layers"], 0) for row in table.to_dicts()}
    planned = {
        entry
        for entry in candidates(plan_of("full").runs, BUDGETS["full"])
        if entry.method in PAPERS and entry.layers in DEPTHS and entry.seed == 0
    }
    assert planned == published
    assert len(planned) == 210


def test_the_quick_plan_has_its_depths_and_problems():
    plan = plan_of("quick")
    planned = candidates(plan.runs, BUDGETS["quick"])
    for problem in ("fixed(0)", *(f"uniform(0,{top})" for top in (1, 3, 5, 7)), "categorical(1,3)"):
        assert all((problem, m, n, 0) in planned for m in PAPERS for n in (1, 2, 4, 7))
    assert {entry.seed for entry in planned} == {0}
    noiseless = [run.spec for run in plan.runs if run.spec.task.noise == "fixed(0)"]
    assert {spec.train.resolved(spec.model.kind).precision for spec in noiseless} == {"float64"}


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_output_has_what_it_needs_at_every_budget(budget):
    parts = parts_of(candidates(plan_of(budget).runs, BUDGETS[budget]), BUDGETS[budget])
    for name, output in OUTPUTS.items():
        assert any(output.needs(part) for part in parts), name
    assert len({part.name for part in parts}) == len(parts)
    assert all(part.entries for part in parts if part.kind in ("layers", "matrices", "mechanisms"))


def test_keeping_runs_keeps_the_names_of_groups_and_the_study_file():
    plan = plan_of("quick", workers=2)
    names = {run.name for run in plan.groups[3].runs} | {plan.groups[0].runs[0].name}
    kept = plan.keeping(names)
    assert {run.name for run in kept.runs} == names
    assert [group.name for group in kept.groups] == [plan.groups[0].name, plan.groups[3].name]
    assert kept.source == plan.source
