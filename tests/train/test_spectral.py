"""GD++ as a function of eigenvalues: that it is one, that its objective is the exact one, and that its least is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import innerloop as il
from innerloop.models import LinearTransformer
from innerloop.predictors import ConstRR
from innerloop.study import SpecError, parse_spec
from innerloop.tasks import LinearRegression
from innerloop.train import second_order
from innerloop.train.objectives import draw_many
from innerloop.train.spectral import Spectral, Spectrum, left_over

TASK = LinearRegression(4, 8, "uniform(0,2)")
SEQUENCES = 20_480
pytestmark = pytest.mark.usefixtures("x64")


def gdpp(layers: int, seed: int = 0, dim: int = 4, context: int = 8) -> LinearTransformer:
    return LinearTransformer.gd_plus_plus(
        dim, layers, key=jax.random.key(seed), context=context, label_scale=0.5
    )


def regret_of(spectrum: Spectrum, share) -> float:
    """Of a filter that keeps `share` of the least-squares solution at every point."""
    return float(spectrum.weights @ (share - spectrum.targets) ** 2) / 2 + spectrum.rest


def solved(trainer: Spectral) -> list:
    states = [trainer.start()]
    while not trainer.finished(states[-1]):
        states.append(trainer.advance(states[-1])[0])
    return states


@pytest.mark.parametrize("law", ["fixed(0)", "uniform(0,2)"])
def test_gd_plus_plus_is_a_filter_of_the_least_squares_solution(law, seed):
    """Of the model's own weights, by products of matrices, to rounding."""
    model = gdpp(3, seed)
    moments = draw_many(LinearRegression(4, 8, law), "bayes", jax.random.key(seed), 50).moments
    weights = np.asarray(model.final_weights(jax.tree.map(jnp.asarray, moments)))
    for S, found in zip(np.asarray(moments.S) / 8, weights, strict=True):
        eigenvalues, vectors = np.linalg.eigh(S[:-1, :-1])
        share = 1 - np.asarray(left_over(model.w, jnp.asarray(eigenvalues)))
        expected = vectors @ (share * (vectors.T @ S[:-1, -1]) / eigenvalues)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", ["bayes", "oracle"])
def test_the_objective_is_the_mean_over_the_sequences(objective):
    """Each eigenvalue apart is exact; gathered in points, it is within a thousandth."""
    examples = draw_many(TASK, objective, jax.random.key(1), SEQUENCES)
    few = draw_many(TASK, objective, jax.random.key(1), 200)
    for made_of, tolerance in ((few, 1e-9), (examples, 1e-3)):
        spectrum = Spectrum.of(made_of)
        for layers in (1, 3):
            model = gdpp(layers, layers)
            share = 1 - np.asarray(left_over(model.w, jnp.asarray(spectrum.eigenvalues)))
            exact = second_order.mean_loss(model, made_of)
            assert regret_of(spectrum, share) == pytest.approx(exact, rel=tolerance)


def test_no_function_of_eigenvalues_passes_the_floor_and_ridge_is_one_of_them():
    """Ridge with any constant; at a known sigma the best function is ridge itself, to what 20 480 sequences tell."""
    spectrum = Spectrum.of(draw_many(TASK, "bayes", jax.random.key(2), SEQUENCES))
    known = Spectrum.of(draw_many(LinearRegression(4, 8, "fixed(1)"), "bayes", jax.random.key(2), SEQUENCES))
    assert spectrum.floor > 0.01 and known.floor < 1e-6  # a known sigma's posterior mean is ridge
    for strength in (0.1, 1.0, 10.0):
        share = spectrum.eigenvalues / (spectrum.eigenvalues + strength / 8)
        assert regret_of(spectrum, share) > spectrum.floor
    np.testing.assert_allclose(known.targets, known.eigenvalues / (known.eigenvalues + 1 / 8), rtol=2e-3)


def test_a_deep_filter_ends_just_above_the_floor_and_the_best_ridge_is_not_below_it():
    """On sequences of its own; tolerance: five standard errors of 20 480 regrets."""
    state = solved(trainer := Spectral(gdpp(4), TASK, sequences=SEQUENCES, starts=1, steps=30))[-1]
    fresh = draw_many(TASK, "bayes", jax.random.key(5), SEQUENCES)
    losses = {depth: second_order.mean_loss(model, fresh) for depth, model in trainer.by_depth(state).items()}
    floor = trainer.spectrum.floor
    spread = second_order.pool_losses(state.solved[-1], fresh).std() / np.sqrt(SEQUENCES)
    assert losses[1] > losses[2] > losses[4] and abs(losses[4] - floor) < 5 * spread + 0.01 * floor
    ridge = fresh.losses(np.asarray(ConstRR(TASK).implicit_weights(fresh.moments)))
    assert floor - 5 * spread < ridge.mean() < 1.1 * floor


def test_one_layer_is_the_closed_form():
    """Of one layer only w_yx matters: 1 - rho is -w_yx lambda, and the best is a ratio of sums."""
    trainer = Spectral(gdpp(1), TASK, sequences=SEQUENCES, starts=1, steps=30)
    eigenvalues, weights, targets, _ = trainer.spectrum
    expected = -(weights * targets * eigenvalues).sum() / (weights * eigenvalues**2).sum()
    assert float(solved(trainer)[-1].solved[-1].w[0, 1]) == pytest.approx(expected, rel=1e-6)


def test_it_is_never_behind_a_warm_chain():
    """Without noise, three layers, where minima lie apart; on fresh sequences, within two hundredths."""
    task = LinearRegression(4, 8, "fixed(0)")
    found = il.fit(gdpp(3), task, optimizer="spectral", sample=2048, starts=1)
    chain = il.fit(gdpp(3), task, sample=256, steps=8, starts=1)
    fresh = draw_many(task, "bayes", jax.random.key(6), 50_000)
    for depth in (1, 2, 3):
        ours, theirs = (
            np.median(second_order.pool_losses(run.exact[depth], fresh).reshape(10, -1).mean(1))
            for run in (found, chain)
        )
        assert ours < 1.02 * theirs


def test_a_resumed_run_ends_as_one_that_was_not_stopped():
    trainer = Spectral(gdpp(3), TASK, sequences=2048, starts=1, steps=10)
    states = solved(trainer)
    again = Spectral(gdpp(3), TASK, sequences=2048, starts=1, steps=10)
    resumed = again.unpack(trainer.pack(states[1]))
    while not again.finished(resumed):
        resumed, _ = again.advance(resumed)
    assert [trainer.progress(state) for state in states] == pytest.approx([0, 1 / 6, 3 / 6, 1])
    for ours, theirs in zip(resumed.solved, states[-1].solved, strict=True):
        np.testing.assert_array_equal(ours.w, theirs.w)


def test_only_the_depth_that_is_asked_for():
    run = il.fit(gdpp(2), TASK, optimizer="spectral", warm=False, sample=64, starts=1, steps=10)
    assert set(run.by_depth) == {2} and run.training.precision == "float64"


def test_what_it_cannot_solve():
    diag = LinearTransformer.diag(4, 2, key=jax.random.key(0), context=8)
    uneven = LinearRegression(4, 8, "fixed(0)", np.diag([1.0, 1, 1, 2]))
    with pytest.raises(ValueError, match="spectral is for gd\\+\\+, got a model of kind 'diag'"):
        il.fit(diag, TASK, optimizer="spectral")
    with pytest.raises(ValueError, match="isotropic inputs, got a task with an input_covariance"):
        il.fit(gdpp(2), uneven, optimizer="spectral")
    with pytest.raises(ValueError, match="objective bayes or oracle, got 'sampled'"):
        il.fit(gdpp(2), TASK, optimizer="spectral", objective="sampled")
    with pytest.raises(
        ValueError, match="learning_rate is for adam and muon; spectral chooses its own steps"
    ):
        il.fit(gdpp(2), TASK, optimizer="spectral", learning_rate=0.1)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"model": {"kind": "diag"}}, "model.kind gd\\+\\+, got 'diag'"),
        (
            {"model": {"kind": "gd++"}, "task": {"dim": 2, "input_covariance": [[1, 0], [0, 2]]}},
            "task.input_covariance null",
        ),
        ({"model": {"kind": "gd++"}, "train": {"objective": "sampled"}}, "bayes or oracle, got 'sampled'"),
    ],
)
def test_a_spec_that_it_cannot_solve_is_refused_before_training(section, said):
    spec = section | {"train": {"optimizer": "spectral", **section.get("train", {})}}
    with pytest.raises(SpecError, match=said):
        parse_spec(spec)
