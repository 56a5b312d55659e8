"""GD++ as a function of eigenvalues: that it is one, that its objective is the expected loss, that its least is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import innerloop as il
from innerloop.models import LinearTransformer
from innerloop.predictors import ConstRR
from innerloop.study import SpecError, parse_spec
from innerloop.tasks import LinearRegression, OtherInputs, wishart_eigenvalues
from innerloop.train.objectives import draw_many
from innerloop.train.spectral import Spectral, Spectrum, left_over

TASK = LinearRegression(4, 8, "uniform(0,2)")
SEQUENCES = 20_480
pytestmark = pytest.mark.usefixtures("x64")


class Signs(OtherInputs):
    """Inputs of plus and minus one."""

    def isotropic_inputs(self, key, shape, *, dtype=None):
        return jax.random.rademacher(key, (*shape, self.dim), dtype or float)


def gdpp(layers: int, seed: int = 0, dim: int = 4, context: int = 8) -> LinearTransformer:
    return LinearTransformer.gd_plus_plus(
        dim, layers, key=jax.random.key(seed), context=context, label_scale=0.5
    )


def loss_of(spectrum: Spectrum, share) -> float:
    """Of a filter that keeps `share` of the least-squares solution at every point."""
    return float(spectrum.weights @ (share - spectrum.targets) ** 2) / 2 + spectrum.floor


def drawn_losses(task: LinearRegression, predicted) -> np.ndarray:
    """Half the squared distance from the true weights above that of ridge with the true sigma, of drawn sequences."""
    moments = task.sample_moments(jax.random.key(3), SEQUENCES)
    assert moments.weights is not None and moments.sigma is not None
    weights, sigma = np.asarray(moments.weights), np.asarray(moments.sigma)
    signal = task.signal_variance / task.dim
    oracle = ridge(moments, sigma[:, None, None] ** 2 / signal + 1e-12)
    ours = np.asarray(predicted(moments))
    return 0.5 * ((ours - weights) ** 2 - (oracle - weights) ** 2).sum(1)


def ridge(moments, strength) -> np.ndarray:
    S = np.asarray(moments.S)
    return np.linalg.solve(S[:, :-1, :-1] + strength * np.eye(S.shape[1] - 1), S[:, :-1, -1:])[..., 0]


def within_errors(losses: np.ndarray, expected: float) -> bool:
    return abs(losses.mean() - expected) < 5 * losses.std() / np.sqrt(len(losses))


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


@pytest.mark.parametrize("law", ["fixed(0)", "uniform(0,2)"])
@pytest.mark.parametrize(("dim", "context"), [(4, 8), (3, 9), (5, 4)])
def test_the_objective_is_what_drawn_sequences_lose_in_the_mean(law, dim, context):
    """Of random models, within five standard errors; with more features than examples the rest is lost whatever they do."""
    task = LinearRegression(dim, context, law)
    spectrum = Spectrum.of(task)
    for layers in (1, 3):
        model = gdpp(layers, layers, dim, context)
        share = 1 - np.asarray(left_over(model.w, jnp.asarray(spectrum.eigenvalues)))
        assert within_errors(drawn_losses(task, model.final_weights), loss_of(spectrum, share))


def test_weights_may_have_a_covariance():
    """Inputs have no direction, so only its trace counts: as if weights were isotropic and as large."""
    uneven = LinearRegression(4, 8, "uniform(0,2)", weight_covariance=np.diag([4.0, 1, 1, 2]))
    even = LinearRegression(4, 8, "uniform(0,2)", weight_covariance=2 * np.eye(4))
    for ours, theirs in zip(Spectrum.of(uneven), Spectrum.of(even), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    model, spectrum = gdpp(2), Spectrum.of(uneven)
    share = 1 - np.asarray(left_over(model.w, jnp.asarray(spectrum.eigenvalues)))
    assert within_errors(drawn_losses(uneven, model.final_weights), loss_of(spectrum, share))


@pytest.mark.parametrize(("law", "second_moment"), [("categorical(1,3)", 5.0), ("uniform(0,2)", 4 / 3)])
def test_the_floor_is_what_ridge_with_the_mean_of_sigma_squared_loses(law, second_moment):
    task = LinearRegression(4, 8, law)
    spectrum = Spectrum.of(task)
    for strength in (second_moment, 0.1, 10.0):
        share = spectrum.eigenvalues / (spectrum.eigenvalues + strength / 8)
        lost = loss_of(spectrum, share)
        assert within_errors(
            drawn_losses(task, lambda moments, strength=strength: ridge(moments, strength)), lost
        )
        assert lost == spectrum.floor if strength == second_moment else lost > 1.01 * spectrum.floor


def test_a_deep_filter_ends_just_above_the_floor_and_the_best_ridge_is_not_below_it():
    """On sequences of its own, within five standard errors."""
    state = solved(trainer := Spectral(gdpp(4), TASK, starts=1, steps=30))[-1]
    losses = {
        depth: drawn_losses(TASK, model.final_weights) for depth, model in trainer.by_depth(state).items()
    }
    floor = trainer.spectrum.floor
    assert losses[1].mean() > losses[2].mean() > losses[4].mean()
    assert within_errors(losses[4], floor)
    ridge = drawn_losses(TASK, ConstRR(TASK).implicit_weights)
    assert floor - 5 * ridge.std() / np.sqrt(SEQUENCES) < ridge.mean() < 1.01 * floor


@pytest.mark.parametrize("law", ["fixed(0)", "uniform(0,2)"])
def test_one_layer_is_the_closed_form(law):
    """Of one layer only w_yx matters, and E tr(X X^T)^2 = d n (n + d + 1): -w_yx = n / (n + d + 1 + E sigma^2)."""
    task = LinearRegression(4, 8, law)
    (model,) = solved(Spectral(gdpp(1), task, tail=0.0, starts=1, steps=30))[-1].solved
    assert -float(model.w[0, 1]) == pytest.approx(8 / (8 + 4 + 1 + task.noise.second_moment), rel=1e-9)


def test_nothing_nearby_and_no_chain_has_a_smaller_integral():
    """Of up to three layers without noise, where minima lie apart."""
    task = LinearRegression(4, 8, "fixed(0)")
    trainer = Spectral(gdpp(3), task, starts=1)
    spectrum = trainer.spectrum

    def lost(w) -> float:
        share = 1 - np.asarray(left_over(jnp.asarray(w), jnp.asarray(spectrum.eigenvalues)))
        return loss_of(spectrum, share)

    chain = il.fit(gdpp(3), task, sample=64, steps=8, starts=1)
    rng = np.random.default_rng(0)
    for depth, model in trainer.by_depth(solved(trainer)[-1]).items():
        w, least = np.asarray(model.w), lost(model.w)
        assert all(lost(w * (1 + 0.02 * rng.normal(size=w.shape))) >= least for _ in range(50))
        assert lost(chain.exact[depth].w) >= least


def test_hopping_finds_one_minimum_from_wherever_it_starts():
    """Six layers without noise, d = 10, n = 20, where starts alone end a third apart."""
    task = LinearRegression(10, 20, "fixed(0)")

    def least(seed: int) -> float:
        trainer = Spectral(gdpp(6, dim=10, context=20), task, warm=False, seed=seed, starts=2)
        return trainer.advance(trainer.start())[1]["loss"]

    assert least(0) == pytest.approx(least(1), rel=0.1)


def test_the_larger_the_tail_out_of_sight_the_lower_the_loss_and_the_sooner_it_breaks():
    """Four layers without noise, d = 10, n = 20: where a sequence loses more than by predicting zero."""
    task, everywhere = LinearRegression(10, 20, "fixed(0)"), wishart_eigenvalues(10, 20)
    losses, breaks = [], []
    for tail in (1e-4, 1e-6):
        trainer = Spectral(gdpp(4, dim=10, context=20), task, warm=False, tail=tail)
        state, row = trainer.advance(trainer.start())
        rho = np.asarray(left_over(trainer.current(state).w, jnp.asarray(everywhere.values)))
        losses.append(row["loss"])
        breaks.append(everywhere.counts[rho**2 > task.dim].sum())
    assert losses[0] < losses[1] and breaks[0] > 3 * breaks[1] > 0
    assert breaks[1] < 2e-6  # only beyond what it saw


def test_a_resumed_run_ends_as_one_that_was_not_stopped():
    trainer = Spectral(gdpp(3), TASK, starts=1, steps=10)
    states = solved(trainer)
    again = Spectral(gdpp(3), TASK, starts=1, steps=10)
    resumed = again.unpack(trainer.pack(states[1]))
    while not again.finished(resumed):
        resumed, _ = again.advance(resumed)
    assert [trainer.progress(state) for state in states] == pytest.approx([0, 1 / 6, 3 / 6, 1])
    for ours, theirs in zip(resumed.solved, states[-1].solved, strict=True):
        np.testing.assert_array_equal(ours.w, theirs.w)


def test_only_the_depth_that_is_asked_for():
    run = il.fit(gdpp(2), TASK, optimizer="spectral", warm=False, starts=1, steps=10)
    assert set(run.by_depth) == {2} and run.training.precision == "float64"


def test_what_it_cannot_solve():
    diag = LinearTransformer.diag(4, 2, key=jax.random.key(0), context=8)
    uneven = LinearRegression(4, 8, "fixed(0)", np.diag([1.0, 1, 1, 2]))
    signs = Signs(4, 8, "fixed(0)")  # pyright: ignore[reportCallIssue]  # Equinox's modules are no plain dataclasses
    with pytest.raises(ValueError, match="spectral is for gd\\+\\+, got a model of kind 'diag'"):
        il.fit(diag, TASK, optimizer="spectral")
    with pytest.raises(ValueError, match="isotropic Gaussian inputs, got a task with an input_covariance"):
        il.fit(gdpp(2), uneven, optimizer="spectral")
    with pytest.raises(ValueError, match="isotropic Gaussian inputs, got a task with other inputs"):
        il.fit(gdpp(2), signs, optimizer="spectral")
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
        (
            {"model": {"kind": "gd++"}, "task": {"dim": 201, "context": 300}},
            "the smaller of task.dim and task.context must be at most 200, got 201",
        ),
    ],
)
def test_a_spec_that_it_cannot_solve_is_refused_before_training(section, said):
    spec = section | {"train": {"optimizer": "spectral", **section.get("train", {})}}
    with pytest.raises(SpecError, match=said):
        parse_spec(spec)
