"""What a job of the reproduction leaves: the losses of its runs, and what its best model does inside, in Parquet files.

A job is done when the files that are asked for are there, so that what was killed goes on.
"""

from dataclasses import asdict
from pathlib import Path

import jax
import polars as pl

from innerloop.files import write_atomically
from innerloop.models.decoder import CausalDecoder
from innerloop.papers.goel2026.inside import attended, distances
from innerloop.papers.goel2026.matched import (
    Arm,
    choose,
    initial_model,
    judged_sequences,
    last_validation,
    one_of,
    train_arm,
)
from innerloop.papers.goel2026.published import published
from innerloop.papers.goel2026.study import Budget, Job
from innerloop.papers.goel2026.training import Program, train


def carry_out(job: Job, amount: Budget, folder: Path) -> None:
    """Train what a job says, and write its frames, that of losses with `parameters` of a model, into `folder`."""
    seeds = published()["protocol"]["seeds"][: amount.seeds]
    frames = (
        {"published": _as_published(job.what, amount, seeds)}
        if isinstance(job.what, Program)
        else _on_equal_terms(job.what, amount, seeds)
    )
    for kind, file in job.files.items():
        write_atomically(folder / file, frames[kind].write_parquet)


def _as_published(program: Program, budget: Budget, seeds: list[int]) -> pl.DataFrame:
    trained = train(
        program,
        seeds=seeds,
        steps=budget.steps(program.steps),
        every=budget.every,
        **budget.changes(),
    )
    return trained.losses.with_columns(parameters=pl.lit(trained.parameters))


def _on_equal_terms(arm: Arm, budget: Budget, seeds: list[int]) -> dict[str, pl.DataFrame]:
    """The grid of learning rates, every seed at its best, which `chosen` marks, and what one model of that does inside.

    On a CPU, where each run takes its own time, the grid is trained with the first seed only, and the other seeds at the
    rate that is chosen. On an accelerator all is one batch of one compiled program, and all seeds choose.
    """
    rates = budget.setting.grid(arm.optimizer)
    together = seeds if jax.default_backend() != "cpu" else seeds[:1]
    grid = train_arm(arm, budget.setting, rates=rates, seeds=together)
    best = choose(grid.losses)
    losses = [grid.losses]
    if others := seeds[len(together) :]:
        losses.append(train_arm(arm, budget.setting, rates=[best], seeds=others).losses)
    matched = pl.concat(losses).with_columns(
        chosen=pl.col("learning_rate") == best, parameters=pl.lit(grid.parameters)
    )
    model = one_of(grid.models, rates.index(best) * len(together))
    about = asdict(arm) | {
        "layers": budget.setting.depth(arm),
        "validation_loss": last_validation(grid.losses)[best],
    }
    columns = [pl.lit(value).alias(name) for name, value in about.items()]
    inside = _inside(model, arm, budget, seeds[0])
    return {"matched": matched} | {kind: frame.select(*columns, pl.all()) for kind, frame in inside.items()}


def _inside(model: CausalDecoder, arm: Arm, budget: Budget, seed: int) -> dict[str, pl.DataFrame]:
    """On the test sequences what a trained model's heads attend to, and its layers' distances beside an untrained one's."""
    setting = budget.setting
    untrained = initial_model(arm, setting, seed)
    return {
        "attention": attended(model, *judged_sequences(setting.judged)),
        "probes": distances(model, untrained, steps=budget.descents, sequences=2 * setting.judged),
    }
