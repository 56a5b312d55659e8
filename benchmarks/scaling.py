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
    flops = _step_flops(dim, layers, batch)
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
    for count in (1, 4, 16, 64):
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


def computed() -> list[dict]:
    """What the model of the cost says: products of 8 D^3 a layer forward, three times that in all."""
    flops = _step_flops
    entries = (
        10 * sum(flops(10, depth, 512) for depth in range(1, 8)) * 6000
    )  # ten problems, seven depths, FULL
    sequences = 70 * 6000 * 512
    one, host, cluster = _H100, 8 * _H100, 800 * _H100
    large = flops(1000, 7, 1)
    memory = 2 * 7 * 1001**2 * 4 * 512 / 2**30  # S and A of every layer, float32, batch 512
    return [
        row(
            "computed, not measured",
            "products of all 70 FULL entries of the first paper's table, TFLOP",
            "",
            entries / 1e12,
            note="24 D^3 L a sequence, 6000 steps of batch 512",
        ),
        row(
            "computed, not measured",
            "the same on one GPU at a tenth of its float32 peak, seconds",
            "",
            entries / (0.1 * one),
            note=f"so {sequences / 1e6:.0f} million posteriors, one eigendecomposition each, are the larger part",
        ),
        row(
            "computed, not measured",
            "the same on one host of 8 GPUs, seconds",
            "",
            entries / (0.1 * host),
            note="one group of runs a GPU: nothing is exchanged between groups",
        ),
        row(
            "computed, not measured",
            "the same on 100 such hosts, seconds",
            "",
            entries / (0.1 * cluster),
            note="below the seconds of compilation and start: 70 runs cannot fill 800 GPUs",
        ),
        row(
            "computed, not measured",
            "d = 1000, 7 layers: products of one sequence in a step, GFLOP",
            "",
            large / 1e9,
            note=f"a run of 6000 x 512 takes {6000 * 512 * large / (0.3 * one) / 3600:.0f} h on one GPU at 0.3 of peak, "
            f"{6000 * 512 * large / (0.3 * host) / 3600:.0f} h on a host of 8, "
            f"{6000 * 512 * large / (0.3 * cluster) / 3600:.1f} h on 100 hosts",
        ),
        row(
            "computed, not measured",
            "d = 1000, 7 layers, batch 512: memory of S and A, GiB",
            "",
            memory,
            note="the next bottleneck: recompute layers in the backward pass, or smaller parts on more devices",
        ),
    ]


_H100 = 67e12  # float32 FLOP/s of one H100 SXM without tensor cores, from its data sheet


def _step_flops(dim: int, layers: int, batch: int) -> float:
    return 24.0 * (dim + 1) ** 3 * layers * batch


GROUPS: dict[str, Callable[[], list[dict]]] = {
    "dims": dims,
    "contexts": contexts,
    "depths": depths,
    "batches": batches,
    "seeds": seeds,
    "computed": computed,
}

if __name__ == "__main__":
    record("scaling", "How the cost of a training step grows", GROUPS, __doc__)
