"""Our second-order training and our checkpoints beside the libraries that a project would otherwise take.

    pip install optimistix orbax-checkpoint
    python benchmarks/peers.py

Levenberg-Marquardt starts from the same model and fits the same sequences in float64, first compilation included: what is
compared is the loss on that sample when a number of iterations is over, and the time that it took.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from results import record, row

import innerloop as il
from innerloop.models.linear import spread_flows
from innerloop.train import second_order
from innerloop.train.checkpoint import Checkpoints
from innerloop.train.objectives import Examples, draw_many

_LAYERS = (1, 4, 7)
_SAMPLE = 4096
_ITERATIONS = 30


def levenberg_marquardt() -> list[dict]:
    """Free DIAG on sigma ~ U(0, 5), cold starts."""
    rows = []
    with jax.enable_x64(True):
        task = il.LinearRegression(10, 20, "uniform(0,5)")
        examples = draw_many(task, "bayes", jax.random.key(1), _SAMPLE)
        for layers in _LAYERS:
            start = il.LinearTransformer.diag(10, layers, 2, key=jax.random.key(layers))
            start = jax.tree.map(lambda leaf: leaf.astype(float) if eqx.is_array(leaf) else leaf, start)
            seconds = {}
            for name, solve in (("ours", _ours), ("Optimistix", _optimistix)):
                began = time.perf_counter()
                loss = solve(start, examples)
                seconds[name] = time.perf_counter() - began
                what = f"{layers} layer{'s' * (layers > 1)}, {name}: loss after {_ITERATIONS} iterations"
                note = f"{seconds[name]:.1f} s"
                rows.append(row("Levenberg-Marquardt", what, "", loss, note=note))
            what = f"{layers} layer{'s' * (layers > 1)}: time of Optimistix / ours"
            rows.append(row("Levenberg-Marquardt", what, "", seconds["Optimistix"] / seconds["ours"]))
    return rows


def _ours(start: il.LinearTransformer, examples: Examples) -> float:
    pool = second_order.Pool.of(examples)
    current, rng = second_order.start(start, pool), np.random.default_rng(0)
    for _ in range(_ITERATIONS):
        current = second_order.iterate(current, pool, sample=_SAMPLE, hard=_SAMPLE // 8, rng=rng)
        if current.stalled:
            break
    return current.loss


def _optimistix(start: il.LinearTransformer, examples: Examples) -> float:
    import optimistix

    theta, build = start.coordinates()
    scale = np.append(np.ones(start.dim), start.label_scale)

    def weights(flows, S):
        """Of one sequence: plain, since Optimistix wants forward mode, which our own kernels do not have."""
        S, T = S * (scale[:, None] * scale[None, :] / start.context), jnp.eye(len(S))
        for layer in flows:
            A = jnp.eye(len(S)) + spread_flows(layer, start.dim) * S
            S, T = A @ S @ A.T, A @ T
        return -T[-1, :-1] / start.label_scale

    def residuals(theta, examples):
        found = jax.vmap(weights, (None, 0))(build(theta).inner_flows(), examples.moments.S)
        return examples.residuals(found).reshape(-1) / jnp.sqrt(2 * _SAMPLE)  # half a mean square, as ours

    solver = optimistix.LevenbergMarquardt(rtol=1e-12, atol=1e-12)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = optimistix.least_squares(
            residuals,
            solver,
            theta,
            args=jax.tree.map(jnp.asarray, examples),
            max_steps=_ITERATIONS,
            throw=False,
        )
        return float(jnp.square(residuals(found.value, examples)).sum())


def checkpoints() -> list[dict]:
    """The checkpoint of FULL with 7 layers and Adam's two moments, saved and read fifty times."""
    import orbax.checkpoint as ocp

    model = il.LinearTransformer.full(10, 7, key=jax.random.key(0))
    arrays = {f"{part}_{name}": np.asarray(getattr(model, name)) for part in "abc" for name in "PQ"}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        ours = Checkpoints(Path(folder) / "ours")
        manager = ocp.CheckpointManager(
            Path(folder) / "orbax", options=ocp.CheckpointManagerOptions(max_to_keep=3)
        )

        def save_ours(step: int) -> None:
            ours.save(step, arrays)

        def save_orbax(step: int) -> None:
            manager.save(step, args=ocp.args.StandardSave(arrays))
            manager.wait_until_finished()

        def read_orbax(step: int) -> None:
            manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(arrays))

        def read_ours(step: int) -> None:
            ours.latest()

        actions = {
            "save, ours": save_ours,
            "save, Orbax": save_orbax,
            "read, ours": read_ours,
            "read, Orbax": read_orbax,
        }
        for name, action in actions.items():
            taken = []
            for step in range(1, 51):
                began = time.perf_counter()
                action(step)
                taken.append(time.perf_counter() - began)
            seconds[name] = float(np.median(taken))
        manager.close()
    return [
        row("Checkpoints", f"{name}: milliseconds, median of 50", "", 1000 * value)
        for name, value in seconds.items()
    ] + [
        row("Checkpoints", f"{verb}: Orbax / ours", "", seconds[f"{verb}, Orbax"] / seconds[f"{verb}, ours"])
        for verb in ("save", "read")
    ]


GROUPS: dict[str, Callable[[], list[dict]]] = {
    "levenberg-marquardt": levenberg_marquardt,
    "checkpoints": checkpoints,
}


if __name__ == "__main__":
    record("peers", "Beside other libraries", GROUPS, __doc__)
