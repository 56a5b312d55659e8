"""Attention on equal terms: what is shared is the same, what is judged is what is said, and learning rates are chosen."""

import equinox as eqx
import jax
import numpy as np
import polars as pl
import pytest

import innerloop as il
from innerloop.papers.goel2026 import Arm, Setting, choose, shifts, train_arm
from innerloop.papers.goel2026.data import DIM, POINTS
from innerloop.papers.goel2026.matched import _layers_matrices, initial_model, judged_sequences

SMALL = Setting(layers=1, width=16, heads=2, steps=60, batch=16, every=30)


@pytest.fixture(scope="module", params=["adam", "muon"])
def trained(request):
    return train_arm(Arm("softmax:1+linear:1", request.param), SMALL, rates=[1e-4, 3e-2], seeds=[3, 5])


def test_every_run_and_position_has_a_row_at_every_evaluation_and_every_shift_at_the_last(trained):
    rows = trained.losses
    assert rows["step"].unique().sort().to_list() == [0, 30, 60]
    assert set(rows["set"]) == {"validation", *shifts}
    runs = rows.select("learning_rate", "seed").unique().sort("learning_rate", "seed")
    assert runs.rows() == [(1e-4, 3), (1e-4, 5), (3e-2, 3), (3e-2, 5)]
    assert set(rows.filter(pl.col("step") < 60)["set"]) == {"validation", "test"}
    assert len(rows) == 4 * (2 + 2 + 1 + len(shifts)) * POINTS == len(rows.unique(rows.columns[:-1]))
    assert (rows["sequences_seen"] == rows["step"].cast(pl.Int64) * 16).all()


def test_losses_are_those_of_the_models(trained):
    """On sequences of our own, NumPy's: 20 000 against 4096, within 10 %; under every shift."""
    rng = np.random.default_rng(0)
    x, w, noise = (
        rng.standard_normal(shape) for shape in ((20_000, POINTS, DIM), (20_000, DIM), (20_000, POINTS))
    )
    model = eqx.filter_jit(jax.tree.map(lambda leaf: leaf[2], trained.models))  # rate 3e-2, seed 3
    last = trained.losses.filter(step=60, learning_rate=3e-2, seed=3, position=POINTS - 1)
    for name, shift in shifts.items():
        xs = x * np.array(shift.inputs)
        clean = np.einsum("spd,sd->sp", xs, w * np.array(shift.weights))
        answers = np.asarray(model(xs.astype("f"), (clean + shift.noise * noise).astype("f")))
        loss = ((answers - clean)[:, -1] ** 2).mean() / DIM
        assert loss == pytest.approx(last.filter(set=name)["loss"].item(), rel=0.1)
    assert set(shifts) == {"test", "weights", "covariates", "larger weights", "noise"}


def test_the_initial_model_has_the_losses_of_step_zero(trained):
    """On the test set itself, to the rounding of sums in single precision."""
    arm = Arm("softmax:1+linear:1", trained.losses["optimizer"][0])
    xs, ys = judged_sequences(SMALL.judged)
    errors = np.asarray(eqx.filter_jit(initial_model(arm, SMALL, 5))(xs, ys) - ys) ** 2 / DIM
    start = trained.losses.filter(step=0, learning_rate=1e-4, seed=5, set="test").sort("position")
    np.testing.assert_allclose(errors.mean((0, 1)), start["loss"], rtol=1e-4)


def test_a_higher_rate_learns_more_here_and_is_chosen(trained):
    mean = (
        trained.losses.filter(set="validation").group_by("learning_rate", "step").agg(pl.col("loss").mean())
    )
    ends = dict(mean.filter(step=60).select("learning_rate", "loss").rows())
    starts = dict(mean.filter(step=0).select("learning_rate", "loss").rows())
    assert ends[3e-2] < 0.97 * starts[3e-2] and ends[3e-2] < ends[1e-4]
    assert choose(trained.losses) == 3e-2


def test_a_run_does_not_depend_on_those_beside_it(trained):
    """To 1e-5 in single precision."""
    optimizer = trained.losses["optimizer"][0]
    alone = train_arm(Arm("softmax:1+linear:1", optimizer), SMALL, rates=[3e-2], seeds=[5])
    own = {"learning_rate": 3e-2, "seed": 5}
    keys = ["set", "step", "position"]
    both = alone.losses.join(trained.losses.filter(**own), on=keys)
    assert len(both) == len(alone.losses)
    np.testing.assert_allclose(both["loss"], both["loss_right"], rtol=1e-4)


def test_arms_see_the_same_sequences():
    """Arms that differ in what is not used have equal curves; the pool and fresh sequences differ."""
    quick = Setting(layers=1, width=8, heads=1, steps=4, batch=8, every=4)
    losses = [
        train_arm(arm, quick, rates=[1e-2], seeds=[0]).losses["loss"].to_numpy()
        for arm in (Arm("softmax"), Arm("softmax", feature_map="elu1"), Arm("softmax", data="pool"))
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert np.abs(losses[0] - losses[2]).max() > 1e-5


def test_choosing_takes_the_last_points_mean_over_seeds_at_the_end():
    def row(rate, seed, step, position, loss, set="validation"):
        return (rate, seed, step, position, loss, set)

    last = POINTS - 1
    rows = [
        *(row(0.1, seed, 10, last, loss) for seed, loss in enumerate([0.2, 0.6])),
        *(row(0.2, seed, 10, last, loss) for seed, loss in enumerate([0.3, 0.3])),
        *(row(0.3, seed, 10, last, loss) for seed, loss in enumerate([0.1, float("nan")])),
        *(row(0.1, seed, 5, last, 0.0) for seed in (0, 1)),  # earlier
        *(row(0.1, seed, 10, 0, 0.0) for seed in (0, 1)),  # another position
        *(row(0.1, seed, 10, last, 0.0, "test") for seed in (0, 1)),
    ]
    columns = ["learning_rate", "seed", "step", "position", "loss", "set"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    assert choose(frame) == 0.2
    with pytest.raises(ValueError, match="must hold rows of the set 'validation'"):
        choose(frame.filter(set="test"))


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="optimizer must be one of adam, muon, got 'sgd'"):
        Arm("softmax", "sgd")
    with pytest.raises(ValueError, match="data must be one of fresh, pool, got 'stale'"):
        Arm("softmax", data="stale")
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Setting(every=0)
    with pytest.raises(ValueError, match="judged must be a multiple of 1024, got 1000"):
        Setting(judged=1000)
    with pytest.raises(ValueError, match="must not be empty"):
        train_arm(Arm("softmax"), SMALL, rates=[], seeds=[1])
    with pytest.raises(ValueError, match="one entry for each of the 3 layers, got 2"):
        train_arm(Arm("softmax,linear"), Setting(), rates=[1e-3], seeds=[1])


def test_muon_orthogonalises_the_layers_matrices_only():
    model = SMALL.model(Arm("linear"), jax.random.key(0))
    chosen = _layers_matrices(eqx.filter(model, eqx.is_array))
    assert chosen.positions is None and chosen.read_in.weight is None and chosen.read_out.weight is None
    block = chosen.blocks[0]
    assert all(
        each.weight is not None and each.bias is None for each in (block.qkv, block.mixed, block.expand)
    )
    assert block.norm_mix.weight is None
    assert il.papers.goel2026.Setting().grid("muon") == (3e-3, 1e-2, 3e-2)
