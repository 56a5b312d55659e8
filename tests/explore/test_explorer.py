"""What the page shows against the library: implicit weights, least squares, ridge, Bayes, losses, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

import innerloop as il
from explored import run
from innerloop.explore import Explorer
from innerloop.explore.asked import ContextAsked, DrawAsked, LossesAsked
from innerloop.explore.context import draw, references
from innerloop.explore.sample import SEQUENCES, Sample
from innerloop.study import Run

RTOL = 1e-6  # of float64 answers; rounding is far below


@pytest.fixture(scope="module")
def pair() -> tuple[Explorer, list[Run]]:
    """A DIAG and a FULL of one problem."""
    rng = np.random.default_rng(5)
    runs = [run("diag", 3, rng), run("full", 2, rng)]
    return Explorer(runs), runs


@pytest.fixture(scope="module")
def alone() -> tuple[Explorer, Run]:
    only = run("diag", 3, np.random.default_rng(6))
    return Explorer([only]), only


def asked(drawn: dict, sigma: float, flows: list) -> ContextAsked:
    return ContextAsked(x=drawn["x"], y=drawn["y"], sigma=sigma, flows=flows)


def moments_of(x, y) -> il.Moments:
    tokens = np.concatenate([np.asarray(x), np.asarray(y)[:, None]], axis=1)
    return il.Moments(S=jnp.asarray(tokens.T @ tokens), n=len(tokens))


@pytest.mark.parametrize("n", [2, 3, 40])
@pytest.mark.parametrize("noise", ["uniform(0,2)", "categorical(0.5,2)", "fixed(1)"])
def test_references_are_the_librarys(x64, n, noise):
    task = il.LinearRegression(3, n, noise)
    drawn = draw(task, n, 3, 0.7, seed=4)
    found = references(task, drawn.x, drawn.y, 0.7)
    posterior = task.posterior(moments_of(drawn.x, drawn.y))
    expected = {
        "ols": np.linalg.lstsq(drawn.x, drawn.y)[0],
        "ridge": posterior.ridge(jnp.asarray(0.7)),
        "bayes": posterior.mean_and_spread()[0],
    }
    assert set(found) == set(expected)
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=RTOL, atol=1e-9, err_msg=name)


def test_references_know_the_covariances(x64):
    covariances = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 0.2]])
    task = il.LinearRegression(2, 6, "uniform(0,2)", *covariances)
    drawn = draw(task, 6, 2, 1.0, seed=0)
    found = references(task, drawn.x, drawn.y, 1.0)
    posterior = task.posterior(moments_of(drawn.x, drawn.y))
    np.testing.assert_allclose(found["ridge"], posterior.ridge(jnp.asarray(1.0)), rtol=RTOL)
    np.testing.assert_allclose(found["bayes"], posterior.mean_and_spread()[0], rtol=RTOL)


def test_paths_are_the_models_implicit_weights(x64, pair):
    explorer, runs = pair
    drawn = explorer.draw(DrawAsked(n=8, dim=3, sigma=1.0, seed=1))
    answer = explorer.context(asked(drawn, 1.0, [None, None]))
    for own, found in zip(runs, answer["runs"], strict=True):
        model = jax.tree.map(jnp.asarray, own.exact_model)
        expected = np.asarray(model.implicit_weights(moments_of(drawn["x"], drawn["y"])))
        np.testing.assert_allclose(found["path"], expected, rtol=RTOL, atol=1e-12)
        away = np.linalg.norm(expected - np.array(answer["references"]["bayes"]), axis=1)
        np.testing.assert_allclose(found["distances"]["bayes"], away, rtol=RTOL)


def test_flows_are_followed_in_any_dimension(x64, alone):
    explorer, own = alone
    flows = (np.array(explorer.about()["runs"][0]["flows"]) * [[[0.5, 1], [1, -2]]]).tolist()
    drawn = explorer.draw(DrawAsked(n=5, dim=7, sigma=1.0, seed=1))
    answer = explorer.context(asked(drawn, 1.0, [flows]))
    expected = il.LinearTransformer.from_flows(np.array(flows), 7).implicit_weights(
        moments_of(drawn["x"], drawn["y"])
    )
    np.testing.assert_allclose(answer["runs"][0]["path"], expected, rtol=RTOL, atol=1e-12)


def test_sigma_n_and_seed_change_only_what_they_say(alone):
    explorer, _ = alone
    base = explorer.draw(DrawAsked(n=8, dim=3, sigma=1.0, seed=0))
    louder = explorer.draw(DrawAsked(n=8, dim=3, sigma=2.0, seed=0))
    longer = explorer.draw(DrawAsked(n=9, dim=3, sigma=1.0, seed=0))
    other = explorer.draw(DrawAsked(n=8, dim=3, sigma=1.0, seed=1))
    clean = np.array(base["x"]) @ base["weights"]
    assert (louder["x"], louder["weights"]) == (base["x"], base["weights"])
    np.testing.assert_allclose(np.array(louder["y"]) - clean, 2 * (np.array(base["y"]) - clean), atol=1e-12)
    assert (longer["x"][:8], longer["y"][:8]) == (base["x"], pytest.approx(base["y"], abs=1e-12))
    assert other["weights"] != base["weights"] and other["x"] != base["x"]


def test_losses_are_the_mean_over_the_sample(x64, pair):
    """The sample's own S, judged sequence by sequence with the library's posterior and models."""
    explorer, runs = pair
    task = runs[0].spec.task.build()
    sample = Sample(task, most=3)
    S = np.asarray(sample._S)[:SEQUENCES]

    def bayes_and_spread(S):
        return task.posterior(il.Moments(S=S, n=8)).mean_and_spread()

    bayes, spread = jax.jit(jax.vmap(bayes_and_spread))(S)
    assert explorer.sample()["floor"]["value"] == pytest.approx(float(spread.mean()), rel=RTOL)
    for index, own in enumerate(runs):
        model = jax.tree.map(jnp.asarray, own.exact_model)
        weights = model.implicit_weights(il.Moments(S=jnp.asarray(S), n=8))[:, -1]
        losses = np.asarray(0.5 * ((weights - bayes) ** 2).sum(-1) + spread)
        found = explorer.losses(LossesAsked(run=index))["adjusted"]
        assert found["value"] == pytest.approx(losses.mean(), rel=RTOL)
        assert found["se"] == pytest.approx(losses.std(ddof=1) / SEQUENCES**0.5, rel=RTOL)


def test_losses_agree_with_evaluate_on_other_sequences(pair):
    explorer, runs = pair
    judged = il.evaluate(runs[0].exact_model, runs[0].spec.task.build(), sequences=20_000)
    found = explorer.losses(LossesAsked(run=0))["adjusted"]
    error = np.hypot(found["se"], judged.adjusted_loss.standard_error)
    assert found["value"] == pytest.approx(judged.adjusted_loss.value, abs=5 * error)


def test_moved_flows_are_judged_as_the_model_that_has_them(pair):
    explorer, runs = pair
    flows = explorer.about()["runs"][0]["flows"]
    same = explorer.losses(LossesAsked(run=0, flows=flows))
    assert same["adjusted"]["value"] == pytest.approx(
        explorer.losses(LossesAsked(run=0))["adjusted"]["value"], rel=1e-12
    )
    idle = explorer.losses(LossesAsked(run=0, flows=np.zeros((3, 2, 2)).tolist()))
    task, sample = runs[0].spec.task.build(), explorer.sample()
    # Weights of zero at sigma = 0 and n > d lose half the squared length of the weights: dim / 2 in the mean.
    assert idle["by_sigma"][0] == pytest.approx(task.dim / 2, abs=5 * (task.dim / 2 / 256) ** 0.5)
    assert idle["adjusted"]["value"] > sample["floor"]["value"]


def test_what_blows_up_is_said_and_not_hidden(alone):
    explorer, _ = alone
    drawn = explorer.draw(DrawAsked(n=8, dim=3, sigma=1.0, seed=1))
    flows = np.full((3, 2, 2), 1e5).tolist()
    deep = explorer.context(asked(drawn, 1.0, [flows]))["runs"][0]
    assert max(deep["distances"]["ols"]) > 1e30
    assert explorer.losses(LossesAsked(run=0, flows=flows))["adjusted"]["value"] > 1e30


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dim": 4}, "dim must be 3, that of the run, got 4"),
        ({"flows": [None]}, "flows must have an entry for each of the 2 runs, got 1"),
        ({"flows": [[[[0, 0], [0, 0]]], None]}, "flows must have 3 layers, as runs/diag has, got 1"),
        ({"flows": [None, [[[0, 0], [0, 0]]]]}, "runs/full is a FULL model: it has no flows to move"),
        ({"run": 2}, "run must be below 2, the number of runs, got 2"),
    ],
)
def test_what_the_runs_do_not_have(pair, change, said):
    explorer, _ = pair
    with pytest.raises(ValueError, match=said):
        if "run" in change:
            explorer.losses(LossesAsked(run=change["run"]))
        elif "dim" in change:
            explorer.draw(DrawAsked(n=8, dim=change["dim"], sigma=1.0, seed=0))
        else:
            explorer.context(ContextAsked(x=[[1, 2, 3]], y=[1], sigma=1, flows=change["flows"]))


@pytest.mark.parametrize(
    ("form", "body", "said"),
    [
        (DrawAsked, {"n": 0, "dim": 1, "sigma": 1, "seed": 0}, "greater than or equal to 1"),
        (DrawAsked, {"n": 1, "dim": 1, "sigma": float("nan"), "seed": 0}, "sigma"),
        (ContextAsked, {"x": [[1], [1, 2]], "y": [1, 2], "sigma": 1, "flows": []}, "rows of one length"),
        (
            ContextAsked,
            {"x": [[1], [2]], "y": [1], "sigma": 1, "flows": []},
            "a label for each of the 2 rows",
        ),
        (ContextAsked, {"x": [[1e7]], "y": [1], "sigma": 1, "flows": []}, "less than or equal to 1000000"),
        (LossesAsked, {"run": 0, "flows": [[[1, 2, 3], [1, 2]]]}, "at most 2 items"),
    ],
)
def test_a_request_of_another_form(form, body, said):
    with pytest.raises(ValidationError, match=said):
        form.model_validate(body)


def test_runs_of_different_problems_are_not_compared():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"different problems.*uniform\(0,2\); .*uniform\(0,3\)"):
        Explorer([run("diag", 1, rng), run("diag", 1, rng, noise="uniform(0,3)")])


def test_too_many_features_are_said():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="up to 64 features can be explored, got dim 65"):
        Explorer([run("diag", 1, rng, dim=65)])
