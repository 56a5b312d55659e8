"""Measures what the first path promises, and writes docs/results/foundation.parquet and docs/results/foundation.md.

    python benchmarks/foundation.py                   # everything, about ten minutes on two cores
    python benchmarks/foundation.py --only baselines  # one group; the others' rows stay as they are

Wall times are of a machine that did nothing else; losses are on a million fresh sequences.
"""

import time
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from results import record, row

import innerloop as il
from innerloop.evaluation import Estimate, evaluate, judge_baselines
from innerloop.papers.vladymyrov2024 import published
from innerloop.study import parse_spec
from innerloop.train.objectives import draw

NOISY = [str(il.Uniform(0.0, float(k))) for k in range(1, 8)] + ["categorical(1,3)", "categorical(1,3,5)"]


def training() -> list[dict]:
    """The four trainings with a bar, and the tail of each on a million sequences."""
    cases = [
        ("free DIAG, 7 layers, s_max = 5", {"kind": "diag", "heads": 2}, "uniform(0,5)", "<= 0.0436 in 60 s"),
        ("one-head DIAG, 7 layers, s_max = 5", {"kind": "diag"}, "uniform(0,5)", "<= 0.0452 in 90 s"),
        ("one-head DIAG, 7 layers, s_max = 2", {"kind": "diag"}, "uniform(0,2)", "<= 0.0120 in 90 s"),
        ("FULL, 7 layers, s_max = 5, Muon", {"kind": "full"}, "uniform(0,5)", "<= 0.0412 in 240 s"),
    ]
    rows = []
    for what, model, noise, bar in cases:
        jax.clear_caches()
        spec = parse_spec({"task": {"noise": noise}, "model": {"layers": 7, **model}})
        task = spec.task.build()
        fitted = il.fit(spec.model.build(task), task, **spec.train.model_dump())
        found = evaluate(fitted.exact[7], task, sequences=1_000_000)
        paper = published(model["kind"], noise, 7)
        note = f"published {paper}; floor {found.floor.value:.5f}; {found.not_finite} of 10^6 not finite"
        rows.append(
            row(
                "training",
                f"{what}: adjusted loss",
                bar,
                found.adjusted_loss.value,
                error=found.adjusted_loss.standard_error,
                note=note,
            )
        )
        rows.append(
            row("training", f"{what}: seconds of training, compilation included", bar, fitted.seconds)
        )
        rows.append(
            row("training", f"{what}: worst sequence's share of the mean", "shown", found.worst_share)
        )
    return rows


def baselines() -> list[dict]:
    """Baselines on the nine noisy columns, and the Bayes floor of each with its time."""
    rows = []
    for noise in NOISY:
        task = il.LinearRegression(10, 20, noise)
        began = time.perf_counter()
        floor, _ = il.bayes_floor(task)
        seconds = time.perf_counter() - began
        rows.append(
            row(
                "floor",
                f"{noise}: Bayes floor",
                "s.e. <= 1 % of it",
                floor.value,
                error=floor.standard_error,
                note=f"{seconds:.1f} s for 200 000 sequences (bar 30 s)",
            )
        )
        for name, (_, found) in judge_baselines(task, sequences=200_000).items():
            paper = published(name, noise)
            if paper is not None:
                tolerance = max(0.05 * paper, 0.002)
                rows.append(
                    row(
                        "baselines",
                        f"{noise}: {name}",
                        f"{paper} +- {tolerance:.4f}",
                        found.adjusted_loss.value,
                        error=found.adjusted_loss.standard_error,
                    )
                )
    return rows


def estimators() -> list[dict]:
    """Standard error of the exact objective against the sampled one on the same prompts, TunedRR at s_max = 5."""
    task = il.LinearRegression(10, 20, "uniform(0,5)")
    predictor = il.predictors.TunedRR(task)
    with jax.enable_x64(True):
        prompts = task.sample_prompts(jax.random.key(11), 20_000)
        moments, latent = prompts.moments(), prompts.weights
        assert latent is not None
        weights = predictor.implicit_weights(moments)
        posterior = jax.vmap(task.posterior)(moments)
        ridge = jax.vmap(lambda p, s: p.ridge(s))(posterior, prompts.sigma)
        mean, spread = jax.vmap(lambda p: p.mean_and_spread())(posterior)
        sampled = 0.5 * (((weights - latent) * prompts.query).sum(-1)) ** 2
        oracle = 0.5 * (((ridge - latent) * prompts.query).sum(-1)) ** 2
        exact = task.half_square(weights - mean) + spread
        errors = [Estimate.of(np.asarray(x)).standard_error for x in (sampled - oracle, exact)]
    return [
        row(
            "estimators", "sampled / exact standard error of the adjusted loss", ">= 4", errors[0] / errors[1]
        )
    ]


def moment_form() -> list[dict]:
    """One gradient of 7-layer FULL at n = 10^5 against n = 20, in pairs, one after the other."""
    model = il.LinearTransformer.full(10, 7, key=jax.random.key(0))

    @eqx.filter_jit
    def step(model, task, key):
        examples = draw(task, "bayes", key, 512)
        return eqx.filter_grad(lambda m: examples.losses(m.final_weights(examples.moments)).mean())(model)

    def seconds(task, repeat):
        began = time.perf_counter()
        jax.block_until_ready(step(model, task, jax.random.key(repeat)))
        return time.perf_counter() - began

    # One law with one node: with many the posterior uses more nodes at larger n, which is no part of the step.
    tasks = [il.LinearRegression(10, n, il.Fixed(1.0)) for n in (20, 100_000)]
    for task in tasks:
        seconds(task, 0)
    ratios = [seconds(tasks[1], k) / seconds(tasks[0], k) for k in range(40)]
    return [
        row(
            "moment form",
            "gradient step of 7-layer FULL, n = 10^5 against n = 20",
            "within 10 %",
            float(np.median(ratios)),
            note="median of 40 paired ratios",
        )
    ]


GROUPS: dict[str, Callable[[], list[dict]]] = {
    "training": training,
    "baselines": baselines,
    "estimators": estimators,
    "moment-form": moment_form,
}


if __name__ == "__main__":
    record("foundation", "What the first path measures", GROUPS, __doc__)
