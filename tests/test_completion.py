"""What Tab offers, and that it costs no import of JAX."""

import os
import subprocess
import sys

import pytest

from innerloop.commands import completion
from innerloop.papers.goel2026.outputs import OUTPUTS as GOEL2026
from innerloop.papers.goel2026.study import BUDGETS as GOEL2026_BUDGETS
from innerloop.papers.vladymyrov2024.outputs import OUTPUTS as VLADYMYROV2024
from innerloop.papers.vladymyrov2024.study import BUDGETS as VLADYMYROV2024_BUDGETS
from innerloop.study.tracking import TRACKERS
from innerloop.tasks import parse_noise
from innerloop.tasks.noise import LAWS
from shell import innerloop


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with runs, a study of two runs, and spec files."""
    for run in ("runs/one", "runs/other", "runs/rates/runs/a", "runs/rates/runs/b", "demo/runs/deep"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "spec.yaml").touch()
    for file in ("runs/rates/study.yaml", "mine.yaml", "notes.txt", ".hidden.yaml"):
        (tmp_path / file).touch()
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "deep.yml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str, shell: str = "bash") -> list[str]:
    """What Bash is offered for the last of the words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_INNERLOOP_COMPLETE", f"complete_{shell}")
        patch.setenv("COMP_WORDS", "\n".join(["innerloop", *words]))
        patch.setenv("COMP_CWORD", str(len(words)))
        patch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["innerloop", *words]))
        result = innerloop()
    assert result.err == ""
    return result.out.split()


RUNS = ["demo/runs/deep", "runs/one", "runs/other", "runs/rates/runs/a", "runs/rates/runs/b"]


@pytest.mark.parametrize("command", ["evaluate", "compare", "algorithm", "export", "explore"])
def test_runs_are_offered_wherever_one_is_taken(here, command):
    assert sorted(offered(command, "")) == RUNS


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("runs/o", ["runs/one", "runs/other"]),
        ("./runs/on", ["./runs/one"]),
        ("runs/rates/", ["runs/rates/runs/a", "runs/rates/runs/b"]),
        ("nowhere/", []),
    ],
)
def test_a_path_is_completed_as_it_was_begun(here, written, expected):
    assert sorted(offered("evaluate", written)) == expected


def test_a_second_run_and_absolute_paths(here):
    assert sorted(offered("compare", "runs/one", "runs/ot")) == ["runs/other"]
    assert offered("evaluate", f"{here}/runs/on") == [f"{here}/runs/one"]


def test_runs_offers_studies_and_folders_of_runs(here):
    assert sorted(offered("runs", "")) == ["demo/runs", "runs", "runs/rates"]


def test_specs_are_yaml_files(here):
    assert sorted(offered("train", "")) == ["mine.yaml", "specs/deep.yml"]
    assert offered("sweep", "specs/") == ["specs/deep.yml"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["reproduce", ""], ["vladymyrov2024", "goel2026"]),
        (["reproduce", "goel2026", "--budget", ""], ["smoke", "quick", "full"]),
        (["reproduce", "goel2026", "--only", "s"], ["speed", "shifts"]),
        (["reproduce", "vladymyrov2024", "--only", "table1,figure1,t"], ["table1,figure1,theorems"]),
        (["sweep", "study.yaml", "--engine", "r"], ["ray"]),
        (["train", "run.yaml", "--track", "w"], ["wandb"]),
        (["algorithm", "run", "--format", "m"], ["markdown"]),
        (["ev"], ["evaluate"]),
    ],
)
def test_names_are_offered(here, words, expected):
    assert offered(*words) == expected


def test_laws_are_escaped_where_the_shell_would_read_their_brackets(here):
    assert offered("baselines", "--noise", "u") == [r"uniform\(0,5\)"]
    assert offered("baselines", "--noise", "'u") == ["uniform(0,5)"], "the quote is there already"


def test_the_names_are_those_that_the_commands_know():
    assert {"vladymyrov2024": tuple(VLADYMYROV2024), "goel2026": tuple(GOEL2026)} == completion.OUTPUTS
    assert list(completion.PAPERS) == list(completion.OUTPUTS)
    assert list(completion.BUDGETS) == list(VLADYMYROV2024_BUDGETS) == list(GOEL2026_BUDGETS)
    assert tuple(TRACKERS) == completion.TRACKERS
    assert {type(parse_noise(law)) for law in completion.LAWS} == set(LAWS.values())


PROGRAM = """
import sys
from innerloop.cli import main
try:
    main()
finally:
    heavy = {"jax", "numpy", "polars", "duckdb", "matplotlib", "yaml"}
    print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (
            [],
            {
                "_INNERLOOP_COMPLETE": "complete_bash",
                "COMP_WORDS": "innerloop\nevaluate\n",
                "COMP_CWORD": "2",
            },
        ),
        (["train", "--help"], {}),
    ],
)
def test_neither_completion_nor_help_waits_for_jax(here, arguments, asked):
    command = [
        sys.executable,
        "-c",
        PROGRAM.replace("main()", f"sys.argv = ['innerloop', *{arguments}]; main()"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | asked, timeout=120)
    assert ended.returncode == 0
    assert "runs/one" in ended.stdout or "Examples:" in ended.stdout
    assert ended.stderr == "[]\n"
