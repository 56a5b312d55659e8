"""Measures how the cost of a training step grows, and writes docs/results/scaling.parquet and docs/results/scaling.md.

    python benchmarks/scaling.py

One step is a draw of a batch, the loss and its gradient, `bayes` objective, float32. Wall times are of a machine that did
nothing else, the median of several calls.
"""

import time
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from results import record, row

import innerloop as il
from innerloop.train.first_order import FirstOrder, advance_together
from innerloop.train.objectives import Objective, draw


@eqx.filter_jit
def step(model, task, key, batch: int, objective: Objective):
    examples = draw(task, objective, key, batch)
    return eqx.filter_grad(lambda m: examples.losses(m.final_weights(examples.moments)).mean())(model)


@eqx.filter_jit
def draw_only(task, key, batch: int):
    return draw(task, "bayes", key, batch).target


def seconds(call: Callable, repeats: int = 7) -> float:
    """The median of several calls, the first, which compiles, left out."""
    times = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call(jax.random.key(repeat)))
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def measured(group: str, value: str, *, dim=10, context=20, layers=4, batch=512, kind="full") -> dict:
    task = il.LinearRegression(dim, context, "uniform(0,5)")
    make = {"full": il.LinearTransformer.full, "diag": il.LinearTransformer.diag}[kind]
    model = make(dim, layers, key=jax.random.key(0), context=context, label_scale=0.25)
    whole = seconds(lambda key: step(model, task, key, batch, "bayes"))
    drawn = seconds(lambda key: draw_only(task, key, batch))
    flops = 24 * (dim + 1) ** 3 * layers * batch
    rate = flops / max(whole - drawn, 1e-9) / 1e9
    note = f"draw alone {1e3 * drawn:.2f} ms; products {flops / 1e6:.0f} MFLOP, {rate:.1f} GFLOP/s"
    return row(group, f"{kind}, {value}: ms a step", "", 1e3 * whole, note=note)


def dims() -> list[dict]:
    """Length of the feature vectors, n = 2 d."""
    return [measured("features d", f"d = {d}", dim=d, context=2 * d, batch=128) for d in (5, 10, 20, 40, 80)]


def contexts() -> list[dict]:
    """Examples in a prompt."""
    return [measured("context n", f"n = {n}", context=n) for n in (20, 200, 2000, 20_000, 1_000_000)]


def depths() -> list[dict]:
    """Layers, of both kinds."""
    return [
        measured(f"layers L, {kind}", f"L = {depth}", layers=depth, kind=kind)
        for kind in ("full", "diag")
        for depth in (1, 2, 4, 8)
    ]


def batches() -> list[dict]:
    """Sequences in a batch."""
    return [measured("batch", f"B = {batch}", batch=batch) for batch in (64, 256, 1024, 4096)]


def seeds() -> list[dict]:
    """Runs that train together in one program: 20 steps of batch 256, 4-layer DIAG."""
    task = il.LinearRegression(10, 20, "uniform(0,5)")
    rows = []
    for count in (1, 4, 16):
        trainers = [
            FirstOrder(
                il.LinearTransformer.diag(10, 4, key=jax.random.key(index), label_scale=0.25),
                task,
                steps=1000,
                batch=256,
                interval=20,
                data_seed=index,
            )
            for index in range(count)
        ]
        states = [trainer.start() for trainer in trainers]

        def call(_, trainers=trainers, states=states):
            return [state.carry[2] for state, _ in advance_together(trainers, states)]

        each = seconds(call) / 20 / count
        rows.append(row("runs together", f"diag, {count} runs: ms a step and run", "", 1e3 * each))
    return rows


GROUPS: dict[str, Callable[[], list[dict]]] = {
    "dims": dims,
    "contexts": contexts,
    "depths": depths,
    "batches": batches,
    "seeds": seeds,
}

if __name__ == "__main__":
    record("scaling", "How the cost of a training step grows", GROUPS, __doc__)
