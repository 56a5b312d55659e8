"""`docs/mistakes.md` shows what is printed: every mistake on it is made, and every message compared."""

import ast
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import innerloop as il
from shell import innerloop

PAGE = (Path(__file__).parents[1] / "docs" / "mistakes.md").read_text()
SPEC = "task: {dim: 10, context: 20}\nmodel: {kind: diag, layers: 4}\n"
STUDY = "base: run.yaml\naxes: {model.layers: [1, 2]}\n"
STUDY_RUNS = [f"rates/runs/diag-{layers}l-d10-n20-uniform-0-5-seed0" for layers in (1, 2)]


def entries(language: str, prompt: str) -> list[tuple[str, str]]:
    """What is typed after a prompt, and the lines that follow."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    typed = [each.partition("\n") for block in blocks for each in ("\n" + block).split(f"\n{prompt} ")[1:]]
    return [(line, answer.rstrip("\n")) for line, _, answer in typed]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """The files that the page speaks of."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in {"run.yaml": SPEC, "study.yaml": STUDY, "empty.yaml": ""}.items():
        (folder / name).write_text(text)
    for run in ("mine", "half", *STUDY_RUNS):
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "spec.yaml").write_text(SPEC)
        (folder / "runs" / run / "status.json").write_text('{"status": "stopped"}')
    (folder / "runs" / "rates" / "study.yaml").write_text(STUDY)
    return folder


def state(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("typed", "message"), entries("console", "$"))
def test_a_mistake_on_the_command_line(there, typed, message, monkeypatch):
    monkeypatch.chdir(there)
    for missing in ("uvicorn", "wandb"):
        monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "innerloop.explore.server", raising=False)
    before = state(there)
    result = innerloop(*shlex.split(typed)[1:])
    assert (result.code, result.out, result.err) == (2, "", f"{message}\n")
    assert state(there) == before


def test_mistakes_in_python(unchecked):
    """As for a user, whose annotations nobody checks."""
    namespace: dict = {}
    for typed, message in entries("pycon", ">>>"):
        if not message:
            exec(typed, namespace)
            continue
        assert isinstance(ast.parse(typed).body[0], ast.Expr)
        with pytest.raises(ValueError) as raised:
            eval(typed, namespace)
        assert (typed, f"{type(raised.value).__name__}: {raised.value}") == (typed, message)


TASK = il.LinearRegression(dim=2, context=5, noise="fixed(1)")
MOMENTS = il.Moments(S=np.eye(3), n=5)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: TASK.sample_moments(0, 3), r"key must be a JAX key, such as jax.random.key\(0\), got 0"),
        (lambda: TASK.sample_queries(None, 3), "key must be a JAX key, .* got None"),
        (lambda: il.LinearTransformer.full(2, 1, key="0"), "key must be a JAX key, .* got '0'"),
        (
            lambda: il.evaluate(SimpleNamespace(model=1), TASK),
            r"got a SimpleNamespace; did you mean its .model\?",
        ),
        (
            lambda: il.evaluate("diag-7-uniform5", TASK),
            "must be a model or a baseline, .* got 'diag-7-uniform5'",
        ),
        (lambda: il.bayes_floor(MOMENTS), "task must be a LinearRegression, got a Moments"),
        (lambda: il.loss_by_sigma(il.predictors.OLS(TASK), 3), "task must be a LinearRegression, got 3"),
        (lambda: il.predictors.OLS(TASK).predict(MOMENTS), "prompt must be a Prompt, got a Moments"),
        (lambda: il.predictors.OLS(TASK).implicit_weights(np.eye(3)), r"got an array of shape \(3, 3\)"),
        (lambda: il.LinearRegression(2, 5, 1.0), r'text form, such as "uniform\(0,5\)", got 1.0'),
        (lambda: il.Moments(S=[[1.0], [0.0, 1.0]], n=5), "a list must hold numbers, in rows of equal length"),
    ],
)
def test_more_mistakes_in_python(unchecked, mistake, said):
    with pytest.raises(ValueError, match=said):
        mistake()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("U(0,5)", "uniform(0,5)"),
        ("uniform[0, 5]", "uniform(0,5)"),
        ("unifrom(0,5)", "uniform(0,5)"),
        ("cat(1,3,5)", "categorical(1,3,5)"),
        ("1.5", "fixed(1.5)"),
        ("normal(0,1)", None),
        ("uniform", None),
        ("uniform[5,0]", None),
    ],
)
def test_the_law_that_was_meant(text, meant):
    """Suggested only if it is one, and named like what was written."""
    with pytest.raises(ValueError, match="noise must be") as raised:
        il.parse_noise(text)
    found = re.search(r"did you mean (.*)\?$", str(raised.value))
    assert (found and found[1]) == meant


def test_the_page_has_ten_and_each_shows_a_message():
    parts = PAGE.split("\n## ")[1:]
    assert [part.split(".")[0] for part in parts] == [str(number) for number in range(1, 11)]
    assert all(re.search(r"^(error|ValueError): \w", part, re.MULTILINE) for part in parts)
    assert len(entries("console", "$")) + len(entries("pycon", ">>>")) == PAGE.count("\n$ ") + PAGE.count(
        "\n>>> "
    )
