"""Goel et al. (2026): the data against the stated recipe, the grid against the published settings, and training."""

import equinox as eqx
import jax
import numpy as np
import polars as pl
import pytest

import innerloop as il
from innerloop.papers.goel2026 import Program, grid, published, train
from innerloop.papers.goel2026.training import POINTS


def test_pool_is_the_recipe_bit_for_bit():
    X, y, beta = il.papers.goel2026.pool()
    random = np.random.RandomState(42)
    # The legacy generator fills arrays in order, so the recipe can be read off one long stream.
    stream = random.standard_normal(20_000 * 55)
    np.testing.assert_array_equal(X.ravel(), stream[: 20_000 * 50])
    np.testing.assert_array_equal(beta.ravel(), stream[20_000 * 50 :])
    np.testing.assert_allclose(y, (X * beta[:, None]).sum(-1), rtol=0, atol=1e-14)
    assert X.dtype == y.dtype == beta.dtype == np.float64
    assert X[0, 0, 0] == 0.4967141530112327  # NumPy's well-known first number under this seed


def test_anisotropic_shifts_the_weights_on_inputs_of_the_training_set():
    X, y, beta = il.papers.goel2026.anisotropic()
    train_set, test_set = il.papers.goel2026.pool().split()
    np.testing.assert_array_equal(X, train_set.X[:1000])
    stream = np.random.RandomState(42).standard_normal(1000 * 55)[1000 * 50 :].reshape(1000, 5)
    np.testing.assert_array_equal(beta, stream * np.sqrt([0.5, 1.0, 1.5, 1.0, 1.75]))
    np.testing.assert_allclose(y, (X * beta[:, None]).sum(-1), rtol=0, atol=1e-13)
    assert len(train_set.X) == 16_000 and len(test_set.y) == 4000


def test_grid_is_the_published_one():
    assert sorted(
        (program.name, program.steps, program.learning_rate, program.batch) for program in grid()
    ) == [
        ("linear-1", 7500, 3e-4, 64),
        ("linear-3", 8000, 3e-4, 64),
        ("linear-6", 10_000, 3e-4, 64),
        ("quadratic-1", 30_000, 1e-4, 32),
        ("quadratic-3", 30_000, 1e-4, 32),
        ("quadratic-6", 30_000, 1e-4, 32),
    ]
    key = jax.random.key(0, impl="rbg")
    programs = (Program.as_published(kind, 1) for kind in ("linear", "quadratic"))
    linear, quadratic = (jax.eval_shape(program.model, key) for program in programs)
    assert (
        (linear.width, linear.heads, linear.points) == (quadratic.width, quadratic.heads, 10) == (256, 4, 10)
    )
    assert linear.final_norm is None and quadratic.final_norm is not None
    assert (linear.activation, quadratic.activation) == ("gelu", "gelu_tanh")


def test_published_hands_out_copies():
    published()["protocol"]["dim"] = 6
    assert published()["protocol"]["dim"] == 5


@pytest.fixture(scope="module")
def trained():
    program = Program.as_published("linear", 1)
    return train(program, seeds=[42, 7], steps=40, every=20, width=8, heads=2, mlp_ratio=1)


def test_every_seed_set_and_position_has_a_row_at_every_evaluation(trained):
    rows = trained.losses
    assert rows.columns == [
        *("architecture", "layers", "seed", "step", "sequences_seen", "set", "position", "loss")
    ]
    counts = rows.group_by("set").len().sort("set")
    # The batches' loss is that between two evaluations: there is none at step 0.
    assert counts.rows() == [("anisotropic", 3 * 2 * 10), ("batches", 2 * 2 * 10), ("isotropic", 3 * 2 * 10)]
    assert rows["step"].unique().sort().to_list() == [0, 20, 40]
    assert (rows["sequences_seen"] == rows["step"].cast(pl.Int64) * 64).all()
    assert trained.parameters == 6 * 8 + 20 * 8 + (3 + 1 + 1 + 1) * 64 + (3 + 1 + 1 + 1 + 4) * 8 + 9


def test_losses_are_those_of_the_models_on_the_published_sets(trained):
    sets = {
        "isotropic": il.papers.goel2026.pool().split()[1],
        "anisotropic": il.papers.goel2026.anisotropic(),
    }
    for name, data in sets.items():
        last = trained.last_point(name).filter(step=40)["loss"]
        for seed, loss in enumerate(last):
            model = jax.tree.map(lambda leaf, seed=seed: leaf[seed], trained.models)
            answers = eqx.filter_jit(model)(data.X.astype("f"), data.y.astype("f"))
            error = (np.asarray(answers) - data.y)[:, POINTS - 1]
            assert abs((error**2).mean() / 5 / loss - 1) < 1e-4


def test_training_lowers_the_loss_of_its_own_batches_and_seeds_differ(trained):
    mean = trained.losses.group_by("set", "seed", "step").agg(pl.col("loss").mean()).sort("seed", "step")
    for seed in (42, 7):
        test = mean.filter(set="isotropic", seed=seed)["loss"]
        assert test[2] < test[1] < test[0]
        batches = mean.filter(set="batches", seed=seed)["loss"]
        # 1280 sequences, the loss of which spreads as a chi square does: within 20 % of the test loss around it.
        assert test[1] * 0.8 < batches[0] < test[0] * 1.2
    assert len(set(trained.last_point()["loss"])) == 6
    assert trained.samples_to(1.0)["seed"].to_list() == [42, 7]


def test_unknown_programs_are_named():
    with pytest.raises(ValueError, match="layers must be one of 1, 3, 6, got 2"):
        Program.as_published("linear", 2)
    with pytest.raises(ValueError, match="seeds, steps and every must be at least one"):
        train(Program.as_published("linear", 1), seeds=[])


@pytest.mark.usefixtures("unchecked")
def test_unknown_architectures_and_precisions_are_named():
    with pytest.raises(ValueError, match="architecture must be linear or quadratic, got 'cubic'"):
        Program.as_published("cubic", 1)
    with pytest.raises(ValueError, match="precision must be float32 or tensorfloat32, got 'half'"):
        train(Program.as_published("linear", 1), precision="half")
