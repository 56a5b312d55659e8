"""What a job of the reproduction leaves: the losses of its runs, one Parquet file, so that what was killed goes on."""

from pathlib import Path

import polars as pl

from innerloop.files import write_atomically
from innerloop.papers.goel2026.matched import Arm, choose, train_arm
from innerloop.papers.goel2026.published import published
from innerloop.papers.goel2026.study import BUDGETS, Budget, Job
from innerloop.papers.goel2026.training import Program, train


def carry_out(job: Job, budget: str, folder: Path) -> None:
    """Train what a job says, and write its frame, with `parameters` of a model, into `folder`."""
    amount = BUDGETS[budget]
    seeds = published()["protocol"]["seeds"][: amount.seeds]
    frame = (
        _as_published(job.what, amount, seeds)
        if isinstance(job.what, Program)
        else _on_equal_terms(job.what, amount, seeds)
    )
    write_atomically(folder / f"{job.name}.parquet", lambda file: frame.write_parquet(file))


def _as_published(program: Program, budget: Budget, seeds: list[int]) -> pl.DataFrame:
    every = published()["protocol"]["eval_every_steps"]
    trained = train(
        program,
        seeds=seeds,
        steps=budget.steps(program.steps),
        every=budget.steps(every),
        **budget.changes(),
    )
    return trained.losses.with_columns(parameters=pl.lit(trained.parameters))


def _on_equal_terms(arm: Arm, budget: Budget, seeds: list[int]) -> pl.DataFrame:
    """The grid of learning rates with the first seed, then the others with the one that is chosen: `chosen` marks it."""
    rates = budget.setting.grid(arm.optimizer)
    first = train_arm(arm, budget.setting, rates=rates, seeds=seeds[:1])
    best = choose(first.losses)
    losses = [first.losses]
    if others := seeds[1:]:
        losses.append(train_arm(arm, budget.setting, rates=[best], seeds=others).losses)
    return pl.concat(losses).with_columns(
        chosen=pl.col("learning_rate") == best, parameters=pl.lit(first.parameters)
    )
