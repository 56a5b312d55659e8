"""The command as a user meets it: exit codes, what is on standard output, and what is on standard error."""

import itertools
import json
import math
import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import typer

import innerloop as il
from innerloop import study
from innerloop.cli import app
from innerloop.commands import judging
from innerloop.study import load_run
from innerloop.study import run as run_module
from innerloop.study.store import Store
from shell import innerloop, one_object

SPEC = """\
task: {dim: 2, context: 6, noise: "uniform(0,2)"}
model: {kind: gd++, layers: 1}
train: {optimizer: levenberg-marquardt, steps: 1, sample: 32}
evaluate: {sequences: 500}
"""


COMMANDS = [
    "demo",
    "reproduce",
    "train",
    "sweep",
    "runs",
    "compare",
    "evaluate",
    "algorithm",
    "export",
    "explore",
    "baselines",
    "doctor",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A spec, the run folder that `train` made of it, and what it said."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "run.yaml").write_text(SPEC)
    return (
        folder / "run.yaml",
        folder / "run",
        innerloop("train", folder / "run.yaml", "--out", folder / "run"),
    )


@pytest.fixture(scope="module")
def evaluated(trained):
    return one_object(innerloop("evaluate", trained[1], "--json"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_ends_with_examples(command):
    result = innerloop(command, "--help")
    assert (result.code, result.err) == (0, "")
    text, _, examples = result.out.partition("\nExamples:\n")
    assert f"innerloop {command}" in text
    lines = [shlex.split(line, comments=True) for line in examples.splitlines() if line]
    assert 2 <= len(lines) <= 3
    for program, name, *arguments in lines:
        assert (program, name) == ("innerloop", command)
        words = list(itertools.takewhile(lambda word: word != ">", arguments))
        assert typer.main.get_command(app).commands[name].make_context(name, words).params


def test_the_files_that_help_speaks_of_exist():
    text = "".join(innerloop(command, "--help").out for command in COMMANDS)
    named = set(re.findall(r"examples/[\w.]+", text))
    assert named and all((Path(__file__).parents[1] / name).exists() for name in named)


def test_the_version_is_that_of_the_package():
    assert innerloop("--version") == (0, f"innerloop {il.__version__}\n", "")


def test_the_help_lists_every_command():
    result = innerloop("--help")
    assert result.code == 0
    assert [name for name in COMMANDS if f" {name} " not in result.out] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "No such command 'nope'"),
        (["baselines", "--nosie", "fixed(1)"], "No such option"),
        (["baselines"], "Missing option '--noise'"),
        (["train"], "Missing argument"),
        (["baselines", "--noise", "fixed(1)", "--dim", "two"], "--dim"),
        (["baselines", "--noise", "fixed(1)", "--dim", "0"], "dim must be a whole number >= 1, got 0"),
        (
            ["baselines", "--noise", "fixed(1)", "--context", "-3"],
            "context must be a whole number >= 1, got -3",
        ),
        (
            ["baselines", "--noise", "normal(1)"],
            "noise must be fixed(s), uniform(a,b) or categorical(s1,s2,...)",
        ),
        (["baselines", "--noise", "uniform(5,0)"], "low < high, got low=5, high=0"),
        (
            ["baselines", "--noise", "fixed(1)", "--sequences", "1"],
            "sequences must be a whole number >= 2, got 1",
        ),
        (
            ["baselines", "--noise", "fixed(1)", "--seed", "-1"],
            "seed must be a whole number >= 0 and < 2^31, got -1",
        ),
        (
            ["evaluate", "nowhere"],
            "nowhere is not a run: there is no such folder",
        ),
        (["train", "nowhere.yaml"], "cannot read the spec nowhere.yaml: No such file"),
        (["train", "."], "cannot read the spec .: Is a directory"),
        (
            ["algorithm", "nowhere"],
            "nowhere is not a run: there is no such folder",
        ),
        (["algorithm", "x", "--format", "html"], "--format must be text, markdown or latex, got 'html'"),
        (
            ["export", "nowhere", "--to", "model.py"],
            "nowhere is not a run: there is no such folder",
        ),
        (["export", "nowhere", "--to", "model.txt"], "a file that ends in .py or .onnx, got model.txt"),
        (["explore", "nowhere", "--port", "70000"], "--port"),
        (["export", "nowhere"], "Missing option '--to'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = innerloop(*arguments)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.layres=3"], "model.layres: unknown key; did you mean layers?"),
        (["train.batch=0"], "train.batch: input should be greater than or equal to 1, got 0"),
        (["train.seed"], "--set takes section.field=value, such as train.seed=3, got 'train.seed'"),
        (["task.dim.x=3"], "task.dim.x=3: dim is not a section"),
        (["model.layers=[3]"], "model.layers: input should be a valid integer, got [3]"),
    ],
)
def test_a_wrong_setting_starts_nothing(trained, tmp_path, settings, said):
    spec, *_ = trained
    options = [part for setting in settings for part in ("--set", setting)]
    result = innerloop("train", spec, *options, "--out", tmp_path / "run")
    assert (result.code, result.out) == (2, "")
    assert said in result.err, "brackets survive the markup of the terminal too"
    assert not (tmp_path / "run").exists()


def test_train_says_where_the_run_is_and_prints_no_result(trained):
    _, folder, result = trained
    assert result.code == 0
    assert result.out == ""
    assert f"the run is in {folder}. Next: innerloop evaluate {folder}" in result.err
    assert "100%" in result.err
    assert load_run(folder).spec.model.kind == "gd++"


def test_train_leaves_an_existing_run_alone(trained):
    spec, folder, _ = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = innerloop("train", spec, "--out", folder)
    other = innerloop("train", spec, "--set", "train.seed=1", "--out", folder, "--resume")
    assert (again.code, other.code) == (2, 2)
    assert "already holds a run; go on with it by --resume, or choose another --out" in again.err
    assert "holds a run of another spec" in other.err
    assert innerloop("train", spec, "--out", folder, "--resume").code == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_train_into_what_is_no_folder(trained):
    spec, *_ = trained
    result = innerloop("train", spec, "--out", spec / "run")
    assert result.code == 2
    assert "cannot write to the run folder" in result.err
    assert spec.read_text() == SPEC


@pytest.fixture
def asked(trained, monkeypatch, tmp_path):
    """An empty folder to be in, with a `train_run` that leaves in its folder what one that was stopped does."""
    folders = []

    def train_run(spec, folder, **_):
        folders.append(folder)
        (folder / "spec.yaml").write_text(spec.to_yaml())
        (folder / "status.json").write_text('{"status": "stopped"}')
        return load_run(trained[1])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "train_run", train_run)
    return folders


def test_a_run_s_own_folder_says_model_problem_and_time(trained, asked):
    before = datetime.now().replace(microsecond=0)
    assert innerloop("train", trained[0], "--set", "train.seed=3").code == 0
    parent, name = asked[0].parts
    stem, day, time = name.rsplit("-", 2)
    assert (parent, stem) == ("runs", "gdpp-1l-d2-n6-uniform-0-2-seed3")
    assert before <= datetime.strptime(day + time, "%Y%m%d%H%M%S") <= datetime.now()


def test_a_run_that_was_stopped_is_found_again(trained, asked):
    """By --resume, although nobody says where it is; without, nothing is trained twice. Another spec is another run."""
    innerloop("train", trained[0])
    again = innerloop("train", trained[0])
    assert again.code == 2
    assert (
        f"{asked[0]} holds a run of this spec that is not done (status stopped); go on with it by"
        in again.err
    )
    assert innerloop("train", trained[0], "--resume").code == 0
    assert innerloop("train", trained[0], "--set", "train.steps=2", "--resume").code == 0
    assert asked[0] == asked[1] != asked[2]
    assert [path.name for path in sorted(asked[0].parent.iterdir())] == sorted({path.name for path in asked})


def test_a_run_that_is_done_may_be_trained_anew(trained, asked):
    innerloop("train", trained[0])
    (asked[0] / "status.json").write_text('{"status": "done"}')
    assert innerloop("train", trained[0]).code == 0
    assert asked[0] < asked[1], "in the order of their times"


def test_nothing_is_left_of_a_run_that_did_not_start(trained, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise ValueError("no")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "train_run", refuse)
    assert innerloop("train", trained[0]).code == 2
    assert list((tmp_path / "runs").iterdir()) == []


def test_ctrl_c_ends_with_1_and_says_how_to_go_on(trained, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "fit_together", interrupted)
    result = innerloop("train", trained[0], "--out", tmp_path / "run")
    assert result.code == 1
    assert "stopped; what was saved is kept, go on by --resume" in result.err
    assert "Traceback" not in result.err
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "stopped"
    early = innerloop("evaluate", tmp_path / "run")
    assert early.code == 2
    assert "no trained model yet (status stopped)" in early.err


def test_a_damaged_model_is_a_message(trained, tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "model.npz").write_bytes((trained[1] / "model.npz").read_bytes()[:100])
    result = innerloop("evaluate", tmp_path, "--json")
    assert (result.code, result.out) == (2, "")
    assert "model.npz is damaged" in result.err


def check_baselines(answer: dict, *, sequences: int) -> None:
    """The outer shape, and what must hold between its numbers."""
    assert (answer["noise"], answer["dim"], answer["context"]) == ("uniform(0,2)", 2, 6)
    assert answer["sequences"] == sequences
    assert set(answer["baselines"]) == {"constrr", "adarr", "tunedrr", "ols", "bayes"}
    tuned = {name: set(row["tuned"]) for name, row in answer["baselines"].items() if row["tuned"]}
    assert tuned == {"constrr": {"sigma"}, "tunedrr": {"factor", "cap"}}
    for row in (answer["oracle"], answer["floor"]):
        assert set(row) == {"value", "se"} and 0 < row["se"] < row["value"]
    for row in answer["baselines"].values():
        assert set(row) == {"value", "se", "tuned"}
        assert row["value"] >= answer["floor"]["value"] * (1 - 1e-9)
    assert answer["baselines"]["bayes"]["value"] == pytest.approx(answer["floor"]["value"], rel=1e-9)


def test_baselines_as_json():
    result = innerloop(
        "baselines", "--noise", "Uniform(0, 2)", "--dim", 2, "--context", 6, "--sequences", 500, "--json"
    )
    answer = one_object(result)
    assert set(answer) == {"noise", "dim", "context", "sequences", "oracle", "floor", "baselines"}
    check_baselines(answer, sequences=500)


def test_evaluate_as_json_has_the_baselines_and_the_model(evaluated):
    check_baselines(evaluated, sequences=500)
    assert set(evaluated) == {"noise", "dim", "context", "sequences", "oracle", "floor", "baselines", "model"}
    model = evaluated["model"]
    assert {"adjusted_loss", "regret", "per_layer", "per_sigma"} <= set(model)
    assert set(model["adjusted_loss"]) == set(model["regret"]) == {"value", "se"}
    expected = model["regret"]["value"] + evaluated["floor"]["value"]
    assert model["adjusted_loss"]["value"] == pytest.approx(expected, rel=1e-9)
    assert len(model["per_layer"]) == 2 and model["per_layer"][-1] == model["adjusted_loss"]
    assert model["per_layer"][0]["value"] > model["adjusted_loss"]["value"]
    assert [set(row) for row in model["per_sigma"]] == [{"sigma", "value", "se"}] * 29
    assert [model["per_sigma"][end]["sigma"] for end in (0, -1)] == [0, 3]


def test_algorithm_says_what_every_term_is_worth(trained, evaluated):
    answer = one_object(innerloop("algorithm", trained[1], "--threshold", 0, "--json"))
    assert (answer["kind"], answer["dim"]) == ("gd++", 2)
    [layer] = answer["layers"]
    assert layer["reading"] == "gradient step"
    kept = {flow for flow, term in layer["terms"].items() if term["kept"]}
    assert kept == {"w_yx"}, "after the last layer only labels are read, so w_xx has no effect"
    assert layer["terms"]["w_yx"]["cost"]["value"] > 0
    loss = evaluated["model"]["adjusted_loss"]
    assert answer["loss"]["value"] == pytest.approx(loss["value"], abs=5 * loss["se"])
    text = innerloop("algorithm", trained[1], "--format", "latex")
    assert text.code == 0 and r"\langle \alpha, x_{i}\rangle" in text.out


def test_export_says_where_the_model_comes_from_and_overwrites_nothing(trained, evaluated, tmp_path):
    to = tmp_path / "model.py"
    result = innerloop("export", trained[1], "--to", to)
    assert (result.code, result.out) == (0, "")
    assert f"the model is in {to}" in result.err
    text = to.read_text()
    assert f"Adjusted loss: {evaluated['model']['adjusted_loss']['value']:.5g} ±" in text
    assert f"Run: {trained[1]}, seed 0" in text and "sigma ~ uniform(0,2)" in text
    assert f"Git revision: {load_run(trained[1]).revision}" in text
    again = innerloop("export", trained[1], "--to", to)
    assert again.code == 2 and "exists already" in again.err
    assert to.read_text() == text


def test_explore_says_which_packages_it_needs(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "innerloop.explore.server", raising=False)
    result = innerloop("explore", trained[1], "--no-browser")
    assert (result.code, result.out) == (2, "")
    assert 'innerloop explore needs more packages: pip install "innerloop[explore]"' in result.err


def test_numbers_that_json_cannot_say_are_null(capsys):
    answer = {"model": {"worst_share": math.nan, "per_layer": [{"value": math.inf, "se": 1.5}]}}
    judging._show(answer, True, title="")
    expected = {"model": {"worst_share": None, "per_layer": [{"value": None, "se": 1.5}]}}
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == expected


def test_the_table_has_every_predictor_worst_first_and_the_floor_last(evaluated, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    judging._show(evaluated, False, title="a title")
    lines = capsys.readouterr().out.splitlines()
    assert "a title, sigma ~ uniform(0,2), d = 2, n = 6" in lines[0] + lines[1]
    rows = [line.split("│")[1:3] for line in lines if line.startswith("│")]
    names = [name.strip() for name, _ in rows]
    losses = {"model": evaluated["model"]["adjusted_loss"]["value"]}
    losses |= {name: row["value"] for name, row in evaluated["baselines"].items()}
    assert names[:-1] == sorted(losses, key=lambda name: -losses[name])
    assert names[-1].startswith("Bayes floor")
    assert [loss.strip() for _, loss in rows][:-1] == [f"{losses[name]:.5f}" for name in names[:-1]]


def test_a_process_of_its_own_ends_the_same_way(tmp_path):
    """Exit code and streams as a shell sees them: a mistake, with brackets that a terminal could take for markup."""
    command = [sys.executable, "-m", "innerloop", "baselines", "--noise", "[red](1)", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: noise must be")
    assert "got '[red](1)'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


STUDY = """\
base:
  task: {dim: 2, context: 6, noise: "uniform(0,2)"}
  model: {kind: gd++, layers: 1}
  train: {optimizer: adam, steps: 20, batch: 8}
  evaluate: {sequences: 500}
axes:
  train.seed: {range: [0, 2]}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A study's file, its folder, and what `sweep` said."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "mine.yaml").write_text(STUDY)
    made = innerloop("sweep", folder / "mine.yaml", "--out", folder / "mine", "--workers", 1)
    return folder / "mine.yaml", folder / "mine", made


def test_a_dry_run_says_the_plan_and_leaves_nothing(tmp_path):
    (tmp_path / "mine.yaml").write_text(STUDY)
    result = innerloop(
        "sweep", tmp_path / "mine.yaml", "--out", tmp_path / "out", "--dry-run", "--workers", 1
    )
    assert result.code == 0 and result.out == ""
    assert "mine: 2 runs in 1 groups (1 of several runs that train together), about" in result.err
    assert "group-0000: 2 x gdpp-1l-d2-n6-uniform-0-2-seed0" in result.err
    assert not (tmp_path / "out").exists()


def test_runs_lists_a_study_as_json(swept):
    _, folder, made = swept
    assert made.code == 0, made.err
    result = innerloop("runs", folder, "--json")
    rows = json.loads(result.out, parse_constant=pytest.fail)
    assert [row["spec"]["train"]["seed"] for row in sorted(rows, key=lambda row: row["run"])] == [0, 1]
    for row in rows:
        assert row["status"] == "done" and row["study"] == "mine" and row["seconds"] > 0
        assert row["adjusted_loss"] == pytest.approx(row["regret"] + row["floor"])
    assert rows == sorted(rows, key=lambda row: row["adjusted_loss"])


def test_runs_says_null_in_json_for_a_loss_that_is_no_number(tmp_path):
    (tmp_path / "study.yaml").write_text("name: broken")
    Store(tmp_path).add("runs", [{"run": "a", "adjusted_loss": float("nan"), "regret": float("inf")}])
    (tmp_path / "done").touch()
    [row] = json.loads(innerloop("runs", tmp_path, "--json").out, parse_constant=pytest.fail)
    assert (row["run"], row["adjusted_loss"], row["regret"]) == ("a", None, None)


def test_runs_takes_a_condition(swept):
    _, folder, _ = swept
    [row] = json.loads(innerloop("runs", folder, "--where", "train.seed = 1", "--json").out)
    assert row["run"] == "gdpp-1l-d2-n6-uniform-0-2-seed1"
    wrong = innerloop("runs", folder, "--where", "model.sort = 3")
    assert wrong.code == 2 and "where: 'model.sort = 3' is not a condition on the runs" in wrong.err


def test_a_study_is_not_trained_over_another(swept):
    path, folder, _ = swept
    again = innerloop("sweep", path, "--out", folder)
    assert again.code == 2 and "already holds a study" in again.err
    path.write_text(STUDY.replace("[0, 2]", "[0, 3]"))
    other = innerloop("sweep", path, "--out", folder, "--resume")
    assert other.code == 2 and "holds another study" in other.err


def test_compare_gives_the_difference_its_own_small_error(swept):
    _, folder, _ = swept
    found = sorted(folder.glob("runs/*"))
    rows = json.loads(innerloop("compare", *found, "--json").out)
    assert [row["difference"] for row in rows] == sorted(row["difference"] for row in rows)
    assert rows[0]["difference"] == 0
    assert rows[1]["difference"] == pytest.approx(rows[1]["regret"] - rows[0]["regret"])
    assert rows[1]["difference_se"] < rows[1]["adjusted_loss_se"]


def test_compare_refuses_different_problems(swept, trained, tmp_path):
    _, folder, _ = swept
    (tmp_path / "run.yaml").write_text(SPEC.replace("uniform(0,2)", "fixed(1)"))
    innerloop("train", tmp_path / "run.yaml", "--out", tmp_path / "other")
    result = innerloop("compare", trained[1], tmp_path / "other")
    assert result.code == 2
    assert "different problems" in result.err and "fixed(1)" in result.err and "uniform(0,2)" in result.err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--engine", "slurm"], "--engine must be local or ray, got 'slurm'"),
        (["--track", "tensorbord"], "--track must be one of tensorboard, wandb, mlflow, got 'tensorbord'"),
    ],
)
def test_sweep_names_what_is_not_allowed(swept, tmp_path, arguments, said):
    result = innerloop("sweep", swept[0], "--out", tmp_path / "new", *arguments)
    assert result.code == 2 and said in result.err


def test_runs_without_a_folder_says_so(tmp_path):
    result = innerloop("runs", tmp_path / "none")
    assert result.code == 2 and "there is no folder" in result.err
