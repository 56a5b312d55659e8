"""Commands that judge: runs, studies and problems."""

import json
from typing import Annotated

import typer

from innerloop.as_json import without_nan
from innerloop.commands import completion
from innerloop.commands.options import AsJson, RunFolder


def runs(
    folder: Annotated[
        str,
        typer.Argument(
            help="A study, or a folder of studies and runs; s3://, gs:// too.",
            autocompletion=completion.kept,
        ),
    ] = "runs",
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition, such as \"model.kind = 'diag' and adjusted_loss < 0.05\"."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, best first.

    Examples:
        innerloop runs
        innerloop runs runs/rates --json
        innerloop runs --where "model.layers = 4 and status = 'done'"
    """
    from innerloop.study.listing import list_runs

    try:
        found = list_runs(folder, where)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    if as_json:
        print(json.dumps(without_nan(found), allow_nan=False))
    else:
        from innerloop import display

        display.runs(found)


def compare(
    folders: Annotated[
        list[str], typer.Argument(help="Run folders; s3://, gs:// too.", autocompletion=completion.runs)
    ],
    as_json: AsJson = False,
) -> None:
    """Judge several trained models of one problem on the same sequences, and say where they differ.

    Examples:
        innerloop compare runs/one runs/other
        innerloop compare runs/one runs/other runs/third --json
    """
    from innerloop import display
    from innerloop.evaluation import compare_runs
    from innerloop.study import load_run

    found = {folder: load_run(folder) for folder in folders}
    problems = {
        f"{run.spec.task.noise}, d = {run.spec.task.dim}, n = {run.spec.task.context}"
        for run in found.values()
    }
    if len({str(run.spec.task) for run in found.values()}) > 1:
        raise ValueError(
            f"the runs are of different problems, which have no common scale: {'; '.join(sorted(problems))}"
        )
    first = next(iter(found.values())).spec
    with display.console().status("evaluating"):
        table = compare_runs(
            {name: run.exact_model for name, run in found.items()},
            first.task.build(),
            sequences=first.evaluate.sequences,
            seed=first.evaluate.seed,
        )
    if as_json:
        print(json.dumps(without_nan(table.to_dicts()), allow_nan=False))
    else:
        display.comparison(table, title=f"adjusted loss, sigma ~ {first.task.noise}")


def evaluate(run: RunFolder, as_json: AsJson = False) -> None:
    """Judge a trained model against every baseline and the Bayes floor.

    Examples:
        innerloop evaluate runs/mine
        innerloop evaluate runs/mine --json > losses.json
    """
    from innerloop import display
    from innerloop.evaluation import evaluate as judge
    from innerloop.evaluation import loss_by_sigma
    from innerloop.study import load_run

    found = load_run(run)
    task, how = found.spec.task.build(), found.spec.evaluate
    with display.console().status("evaluating"):
        model = judge(found.exact_model, task, sequences=how.sequences, seed=how.seed)
        profile = loss_by_sigma(found.exact_model, task, seed=how.seed)
        answer = _baselines(task, how.sequences, how.seed)
    last = profile.filter(profile["layer"] == found.model.layers)
    answer["model"] = {
        "adjusted_loss": model.adjusted_loss.as_dict(),
        "regret": model.regret.as_dict(),
        "worst_share": model.worst_share,
        "not_finite": model.not_finite,
        "per_layer": [estimate.as_dict() for estimate in model.per_layer],
        "per_sigma": last.select("sigma", "value", se="standard_error").to_dicts(),
    }
    _keep_evaluation(run, model)
    _show(answer, as_json, title=f"{run}: adjusted loss (half squared error)")


def _one_word(noise: str) -> str:
    """The law, unless the shell or the user has taken it apart: said before what is left over is an argument too many."""
    if "(" not in noise:
        from innerloop.tasks import parse_noise

        try:
            parse_noise(noise)
        except ValueError as error:
            raise ValueError(f'{error}; in quotes, as one word: --noise "uniform(0,5)"') from None
    return noise


def baselines(
    noise: Annotated[
        str,
        typer.Option(
            help="Law of sigma: fixed(s), uniform(a,b) or categorical(1,3,5).",
            autocompletion=completion.laws,
            callback=_one_word,
        ),
    ],
    dim: Annotated[int, typer.Option(help="Number of features, d.")] = 10,
    context: Annotated[int, typer.Option(help="Examples in a prompt, n.")] = 20,
    sequences: Annotated[int, typer.Option(help="Fresh sequences to judge on.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of the sequences and of tuning.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Tune and judge the classical predictors of a problem, and its Bayes floor.

    Examples:
        innerloop baselines --noise "uniform(0,5)"
        innerloop baselines --noise "categorical(1,3,5)" --dim 5 --context 50
        innerloop baselines --noise "fixed(1)" --json > floor.json
    """
    from innerloop import display
    from innerloop.tasks import LinearRegression

    task = LinearRegression(dim, context, noise)
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be a whole number >= 0 and < 2^31, got {seed}")
    with display.console().status("tuning and judging"):
        answer = _baselines(task, sequences, seed)
    _show(answer, as_json, title="adjusted loss (half squared error)")


def _keep_evaluation(run: str, model) -> None:
    """Where `innerloop runs` finds it; a folder that cannot be written is no reason to lose the answer."""
    import contextlib

    from innerloop.files import write_atomically
    from innerloop.study import SpecError
    from innerloop.study.remote import mirrored

    text = json.dumps(without_nan(model.summary()), indent=2).encode()
    with contextlib.suppress(OSError, SpecError), mirrored(run) as mirror:
        write_atomically(mirror.folder / "evaluation.json", lambda file: file.write(text))
        mirror.push()


def _baselines(task, sequences: int, seed: int) -> dict:
    """What `innerloop baselines --json` prints."""
    from innerloop.evaluation import judge_baselines

    judged = judge_baselines(task, sequences=sequences, seed=seed)
    _, any_of_them = judged["ols"]
    return {
        "noise": str(task.noise),
        "dim": task.dim,
        "context": task.context,
        "sequences": sequences,
        "oracle": any_of_them.oracle.as_dict(),
        "floor": any_of_them.floor.as_dict(),
        "baselines": {
            name: evaluation.adjusted_loss.as_dict() | {"tuned": predictor.tuned}
            for name, (predictor, evaluation) in judged.items()
        },
    }


def _show(answer: dict, as_json: bool, *, title: str) -> None:
    from innerloop import display

    if as_json:
        print(json.dumps(without_nan(answer), allow_nan=False))
    else:
        display.baselines(answer, title=title)
