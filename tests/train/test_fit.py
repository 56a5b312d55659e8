"""`fit`: options, precisions, repeatability, and what it reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import Training, fit
from innerloop.train.fit import make_trainer
from innerloop.train.warm_chain import WarmChain

_TASK = LinearRegression(3, 6, "uniform(0,2)")
_ADAM = {"optimizer": "adam", "batch": 32}
_SECOND_ORDER = {"optimizer": "levenberg-marquardt", "sample": 32, "steps": 2, "starts": 1}


def make_model(kind: str = "gd++", layers: int = 1, dim: int = 3) -> LinearTransformer:
    sizes = {"key": jax.random.key(0), "context": 6, "label_scale": 0.5}
    if kind == "gd++":
        return LinearTransformer.gd_plus_plus(dim, layers, **sizes)
    make = {"full": LinearTransformer.full, "diag": LinearTransformer.diag}[kind]
    return make(dim, layers, **sizes)


def leaves(model) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model)]


def test_unknown_option():
    with pytest.raises(
        ValueError, match=r"^learning_rte: unknown key; did you mean learning_rate\? Allowed: objective, "
    ):
        fit(make_model(), _TASK, learning_rte=0.1)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"optimizer": "sgd"}, "optimizer"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": float("inf"), "optimizer": "adam"}, "learning_rate"),
        ({"temper": -1.0}, "temper"),
        ({"precision": "float16"}, "precision"),
        ({"optimizer": "levenberg-marquardt", "learning_rate": 0.1}, "learning_rate is for adam and muon"),
    ],
)
def test_options_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        fit(make_model(), _TASK, **options)


@pytest.mark.parametrize("sample, judged", [(16, 3200), (512, 102_400), (4096, 102_400)])
def test_a_chain_judges_on_as_many_sequences_as_its_sample_warrants(sample, judged):
    training = Training(optimizer="levenberg-marquardt", sample=sample).resolved("diag")
    chain = make_trainer(make_model("diag"), _TASK, training)
    assert isinstance(chain, WarmChain)
    assert chain.judge == judged


def test_model_and_task_of_different_dim():
    with pytest.raises(ValueError, match="the model has dim 4, the task has dim 3"):
        fit(make_model(dim=4), _TASK)


@pytest.mark.parametrize(
    "kind, given, optimizer, precision, steps, rate",
    [
        ("full", {}, "muon", "float32", 6000, 0.02),
        ("diag", {}, "levenberg-marquardt", "float64", 30, None),
        ("gd++", {}, "levenberg-marquardt", "float64", 30, None),
        ("diag", {"optimizer": "adam"}, "adam", "float32", 6000, 0.01),
        ("gd++", {"optimizer": "adam", "steps": 7, "learning_rate": 0.5}, "adam", "float32", 7, 0.5),
        ("full", {"precision": "float64"}, "muon", "float64", 6000, 0.02),
    ],
)
def test_defaults_depend_on_the_kind(kind, given, optimizer, precision, steps, rate):
    resolved = Training(**given).resolved(kind)
    assert (resolved.optimizer, resolved.precision, resolved.steps, resolved.learning_rate) == (
        optimizer,
        precision,
        steps,
        rate,
    )
    assert resolved.resolved(kind) == resolved


@pytest.mark.parametrize(
    "options, exact",
    [(_ADAM | {"steps": 5}, np.float32), (_SECOND_ORDER, np.float64)],
    ids=["adam", "levenberg-marquardt"],
)
def test_the_model_comes_back_in_the_precision_of_the_caller(options, exact):
    model = make_model()
    result = fit(model, _TASK, **options)
    assert {leaf.dtype for leaf in leaves(result.model)} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in leaves(result.exact[1])} == {np.dtype(exact)}
    with jax.enable_x64(True):
        inside = fit(model, _TASK, **options)
        assert {leaf.dtype for leaf in leaves(inside.model)} == {np.dtype(np.float64)}
    # Where it was called from changes the answer's precision, not the training.
    for mine, theirs in zip(leaves(result.exact[1]), leaves(inside.exact[1]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "options", [_ADAM | {"steps": 20}, _SECOND_ORDER], ids=["adam", "levenberg-marquardt"]
)
def test_the_same_seed_gives_the_same_parameters(options):
    ends = [leaves(fit(make_model(layers=2), _TASK, **options, seed=seed).exact[2]) for seed in (3, 3, 4)]
    for first, again in zip(ends[0], ends[1], strict=True):
        np.testing.assert_array_equal(first, again)
    assert any((first != other).any() for first, other in zip(ends[0], ends[2], strict=True))


def test_double_precision_adam_follows_single_precision():
    """Another precision draws other random numbers, so what agrees is the loss: within 20% after 300 updates."""
    ends = {}
    for precision in ("float32", "float64"):
        result = fit(make_model("diag", 1), _TASK, **_ADAM, steps=300, precision=precision)
        assert {leaf.dtype for leaf in leaves(result.exact[1])} == {np.dtype(precision)}
        assert result.model.implicit_weights(_TASK.sample_moments(jax.random.key(0), 2)).dtype == jnp.float32
        ends[precision] = result.history["regret"][-1]
    assert abs(ends["float64"] / ends["float32"] - 1) < 0.2


def test_reports_a_falling_regret():
    """300 updates; every report is one row of the history, and the regret more than halves."""
    reports = []
    result = fit(make_model("diag", 2), _TASK, **_ADAM, steps=300, report=reports.append)
    assert [report.row for report in reports] == result.history.to_dicts()
    assert [report.row["step"] for report in reports] == [1, 2, 3]
    assert [report.progress for report in reports] == pytest.approx([1 / 3, 2 / 3, 1])
    assert reports[-1].seconds_left == 0
    regret = [report.row["regret"] for report in reports]
    assert regret[-1] < 0.5 * float(fit_nothing())
    assert regret[-1] < regret[0]


def fit_nothing() -> float:
    """The regret of predicting zero: 1/2 E ||w_bayes||^2, on 4,000 sequences."""
    moments = _TASK.sample_moments(jax.random.key(1), 4000)
    target = jax.vmap(lambda one: _TASK.posterior(one).mean_and_spread()[0])(moments)
    return float((target**2).sum(-1).mean() / 2)


def test_a_model_of_several_depths_by_warm_chain():
    result = fit(make_model(layers=2), _TASK, **_SECOND_ORDER)
    assert {depth: model.layers for depth, model in result.by_depth.items()} == {1: 1, 2: 2}
    for mine, theirs in zip(leaves(result.model), leaves(result.exact[2]), strict=True):
        np.testing.assert_array_equal(mine, theirs.astype(np.float32))
