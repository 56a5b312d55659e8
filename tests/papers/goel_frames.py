"""Made-up losses of arms of `goel2026`, of which it is known what the outputs must say."""

import itertools

import polars as pl

from innerloop.papers.goel2026.data import POINTS
from innerloop.papers.goel2026.matched import Arm

SEEDS = (42, 100, 7)


def as_published() -> pl.DataFrame:
    """Losses that fall by halves every evaluation for linear attention, and half as fast for softmax."""
    rows = [
        {
            "architecture": architecture,
            "layers": layers,
            "seed": seed,
            "step": step,
            "sequences_seen": 64 * step,
            "set": name,
            "position": position,
            "loss": (1.1 if name == "anisotropic" else 1.0) * (1 + seed / 1000) * 0.5 ** (step * rate / 100),
            "parameters": 1000 * layers,
        }
        for (architecture, rate), layers, seed, step, name, position in itertools.product(
            [("quadratic", 0.5), ("linear", 1.0)],
            [1, 3],
            SEEDS,
            range(0, 1001, 100),
            ["isotropic", "anisotropic"],
            [0, POINTS - 1],
        )
    ]
    return pl.DataFrame(rows)


def arm_rows(arm: Arm, end: float, validation: float) -> list[dict]:
    return [
        {
            "mixers": arm.mixers,
            "optimizer": arm.optimizer,
            "feature_map": arm.feature_map,
            "final_layer_norm": arm.final_layer_norm,
            "data": arm.data,
            "layers": arm.layers or 3,
            "learning_rate": rate,
            "seed": seed,
            "step": step,
            "sequences_seen": 16 * step,
            "set": name,
            "position": position,
            "loss": (1.0 if step == 0 else (validation if name == "validation" else end))
            * (1 + 0.01 * SEEDS.index(seed))
            * (1 + 9 * (rate != 0.01)),
            "chosen": rate == 0.01,
            "parameters": 10,
        }
        for (rate, seed), step, name, position in itertools.product(
            [(0.001, 42), *((0.01, seed) for seed in SEEDS)],
            [0, 50, 100],
            ["validation", "test", "noise"],
            range(POINTS),
        )
    ]


def on_equal_terms() -> pl.DataFrame:
    """Softmax is better by Adam, linear by Muon; without LayerNorm it would be better still."""
    arms = [
        (Arm("softmax"), 0.2, 0.21),
        (Arm("softmax", "muon"), 0.1, 0.3),  # the better test loss, which must not choose it
        (Arm("linear"), 0.5, 0.5),
        (Arm("linear", "muon"), 0.4, 0.4),
        (Arm("linear", "muon", final_layer_norm=False), 0.01, 0.01),
    ]
    return pl.DataFrame([row for arm, end, validation in arms for row in arm_rows(arm, end, validation)])
