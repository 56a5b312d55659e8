"""`describe`: its algebra against tokens, its costs against evaluations by hand, its readings of known models."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

import innerloop as il
from innerloop.evaluation import evaluate_many
from innerloop.evaluation.losses import CHUNK
from innerloop.models import Diag
from innerloop.probe import (
    algebra,
    describe,
    gd_plus_plus_solver,
    implicit_model,
    nearest_diag,
    two_level_ridge,
)
from innerloop.probe.algorithm import Algorithm
from innerloop.tasks import LinearRegression

TASK = LinearRegression(2, 12, "uniform(0,3)")
DESCENT, SHRINKAGE = -0.05, -0.002
# Two steps of descent, the second with shrinkage, and two terms that are nearly nothing.
FLOWS = np.array([[[0, 0], [DESCENT, 1e-7]], [[0, 0], [DESCENT, SHRINKAGE]], [[0, 1e-9], [DESCENT, 0]]])


def models() -> dict:
    rng = np.random.default_rng(0)
    p, q = 0.2 * rng.normal(size=(2, 3, 2, 2))
    sizes = {"dim": 3, "context": 5, "label_scale": 0.3}
    two = Diag(p=jnp.asarray(p, float), q=jnp.asarray(q, float), **sizes)
    one = Diag(p=two.p[:, :1], q=two.q[:, :1], **sizes)
    plus = il.LinearTransformer.gd_plus_plus(3, 3, key=jax.random.key(0), context=5)
    return {"diag, one head": one, "diag, two heads": two, "gd++": plus}


@pytest.mark.parametrize("name", ["diag, one head", "diag, two heads", "gd++"])
def test_the_symbolic_update_is_the_models(name, x64, rng):
    """Layer by layer, tokens and (M, u, w, a) to 1e-10, from expressions made of symbols and evaluated by NumPy."""
    model = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), models()[name])
    x, y, query = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=3)
    prompt = il.Prompt(*map(jnp.asarray, (x, y, query)))
    tokens, state = np.asarray(model.tokens(prompt)), implicit_model(model, prompt.moments())
    flows = sp.symbols("w_xx w_xy w_yx w_yy")
    update = algebra.layer_update([flows[:2], flows[2:]])
    symbols = [algebra.DIM, algebra.GRAM, algebra.CORRELATION, algebra.LABEL_ENERGY, algebra.X, algebra.Y]
    symbols += [algebra.M, algebra.U, algebra.W, algebra.SCALE, *flows]
    run = sp.lambdify(symbols, list(update), "numpy")
    for layer, numbers in enumerate(np.asarray(model.flows()).reshape(-1, 4)):
        examples = tokens[layer, :-1]
        S = examples.T @ examples
        before = [np.asarray(part[layer]) for part in state]
        M, u, w, a = before[0], before[1][:, None], before[2][:, None], float(before[3])
        found: list = []
        for token, after in zip(tokens[layer], tokens[layer + 1], strict=True):
            found = run(
                3, S[:-1, :-1], S[:-1, -1:], S[-1, -1], token[:-1, None], token[-1], M, u, w, a, *numbers
            )
            np.testing.assert_allclose(np.ravel(found[0]), after[:-1], rtol=0, atol=1e-10)
            np.testing.assert_allclose(np.ravel(found[1]), after[-1], rtol=0, atol=1e-10)
        for part, after in zip(found[2:], state, strict=True):
            np.testing.assert_allclose(np.ravel(part), np.ravel(after[layer + 1]), rtol=0, atol=1e-10)


def test_heads_add_up_to_flows():
    """Exactly, in symbols: w_ab = sum_k p_a q_b multiplies block ab of S."""
    heads = [(sp.symbols(f"p{k}x p{k}y"), sp.symbols(f"q{k}x q{k}y")) for k in range(2)]
    found = algebra.increment(heads).blocks
    blocks = [
        [algebra.GRAM, algebra.CORRELATION],
        [algebra.CORRELATION.T, algebra.LABEL_ENERGY * sp.Identity(1)],
    ]
    for to in range(2):
        for source in range(2):
            flow = sum(p[to] * q[source] for p, q in heads)
            assert sp.expand(found[to, source]).doit() == sp.expand(flow * blocks[to][source]).doit()


def test_what_no_layer_has_touched_drops_out():
    """Before the first layer M = I, u = w = 0, a = 1; without w_xy u stays 0, and a is touched by w_yy only."""
    first = algebra.layer_update([[0.5, 0], [-0.25, 0]], untouched=set(algebra.START))
    assert first.w == 0.25 * algebra.CORRELATION
    assert algebra.still_untouched(first) == {algebra.U, algebra.SCALE}
    second = algebra.layer_update([[0, 0], [0, -0.5]], untouched={algebra.U, algebra.SCALE})
    assert algebra.still_untouched(second) == {algebra.U}


@pytest.fixture(scope="module")
def described() -> Algorithm:
    return describe(il.LinearTransformer.from_flows(FLOWS, 2), TASK, sequences=CHUNK)


def test_a_cost_is_the_loss_of_the_model_with_that_flow_zeroed(described):
    """To 1e-6 relative of a difference of two evaluations on the same sequences; and so for all terms left out together."""
    zeroed = FLOWS.copy()
    zeroed[1, 1, 1] = 0
    both = FLOWS.copy()
    both[0, 1, 1] = both[2, 0, 1] = 0
    make = il.LinearTransformer.from_flows
    several = {"whole": make(FLOWS, 2), "zeroed": make(zeroed, 2), "both": make(both, 2)}
    judged = evaluate_many(several, TASK, sequences=CHUNK, per_layer=False)
    loss = {name: each.adjusted_loss.value for name, each in judged.items()}
    term = described.layers[1].terms[3]
    assert (term.flow, term.kept) == ("w_yy", True)
    assert term.value == pytest.approx(SHRINKAGE, rel=1e-6)
    assert term.cost.value == pytest.approx(loss["zeroed"] - loss["whole"], rel=1e-6)
    assert 0 < term.cost.standard_error < judged["zeroed"].adjusted_loss.standard_error
    assert described.loss.value == pytest.approx(loss["whole"], rel=1e-9)
    assert described.described_loss.value == pytest.approx(loss["both"], rel=1e-9)
    assert described.left_out.value == pytest.approx(loss["both"] - loss["whole"], rel=1e-3, abs=1e-12)


def test_only_cheap_terms_are_left_out(described):
    kept = [[term.flow for term in layer.kept] for layer in described.layers]
    assert kept == [["w_yx"], ["w_yx", "w_yy"], ["w_yx"]]
    assert described.left_out.value <= 0.01 * described.loss.value
    everything = describe(il.LinearTransformer.from_flows(FLOWS, 2))
    kept = [[term.flow for term in layer.kept] for layer in everything.layers]
    assert kept == [["w_yx", "w_yy"], ["w_yx", "w_yy"], ["w_yx"]], "w_xy of the last layer has no effect"


def test_gradient_descent_is_read_as_gradient_steps(described):
    """Of size -w_yx, or -n w_yx in units of 1/n, on inputs that nothing moves; and the update of the weights says so."""
    assert [layer.reading for layer in described.layers] == [
        "gradient step",
        "gradient step + shrinkage by noise",
        "gradient step",
    ]
    for layer in described.layers:
        step = layer.terms[2]
        assert step.effect["step"] == pytest.approx(0.05, rel=1e-6)
        assert step.effect["step_n"] == pytest.approx(12 * 0.05, rel=1e-6)
        assert step.reading.startswith("gradient step of size 0.05 = 0.6 / n = ")
        assert "moved inputs" not in step.reading
    # The mean of the largest eigenvalue of a Wishart matrix with 12 degrees of freedom in 2 dimensions is about 16.
    assert 0.05 * 12 < described.layers[0].terms[2].effect["step_largest"] < 0.05 * 20
    shrink = described.layers[1].terms[3].effect
    assert shrink["high"] < shrink["factor"] < shrink["low"] < 1
    text = described.text()
    assert "    so  w <- 0.05 alpha\n" in text
    assert "    y_i <- y_i - 0.05 <alpha, x_i> - 0.002 lam y_i\n" in text
    assert "    so  w <- w + 0.05 alpha - 0.002 lam w\n        a <- 1 - 0.002 lam\n" in text


def test_the_solver_of_theorem_5_1_is_read_as_preconditioning_and_one_step():
    found = describe(gd_plus_plus_solver(3, 3, largest=2.0))
    assert [layer.reading for layer in found.layers] == [
        "preconditioning",
        "preconditioning",
        "gradient step",
    ]
    assert found.layers[0].flows[0][0] == pytest.approx(-1 / 6, rel=1e-6)
    assert found.layers[2].terms[2].effect == {"step": pytest.approx((9 / 4) ** 2 / 2, rel=1e-6)}
    assert found.layers[2].terms[2].reading.endswith("of size 2.53, on the moved inputs")
    assert found.loss is found.left_out is found.floor is None


def test_the_model_of_theorem_5_2_is_read_as_a_step_and_shrinkage():
    found = describe(two_level_ridge(3, 100, 1.0, 3.0))
    assert [layer.reading for layer in found.layers] == ["gradient step", "shrinkage by noise"]
    assert "so  w <- w - 0.000909 lam w" in found.text()


def test_all_three_texts_say_the_same_numbers(described):
    texts = {"text": described.text(), "markdown": described._repr_markdown_(), "latex": described.latex()}
    for name, text in texts.items():
        assert text.count("0.05") >= 3, name
        assert f"{described.loss.value:.4g}" in text, name
    assert texts["markdown"].count("$$") == 2 * 3
    assert (
        r"y_{i} &\leftarrow y_{i} - 0.05\,\langle \alpha, x_{i}\rangle - 0.002\,\lambda\,y_{i}"
        in texts["markdown"]
    )
    assert texts["latex"].count(r"\begin{align*}") == texts["latex"].count(r"\end{tabular}") == 3
    assert "~" not in texts["latex"] and r"sigma $\sim$ uniform(0,3)" in texts["latex"]
    json.dumps(described.as_dict(), allow_nan=False)


def test_a_dense_model_of_diagonal_matrices_is_its_own_nearest_diag(x64, rng):
    """Its flows come back to 1e-8, and all that its layers move is explained."""
    model = il.LinearTransformer.from_flows(0.02 * rng.normal(size=(2, 2, 2)), 2)
    dense = il.LinearTransformer.from_matrices(*model.matrices())
    near, explained = nearest_diag(dense, TASK)
    np.testing.assert_allclose(near.flows(), model.flows(), rtol=0, atol=1e-8)
    np.testing.assert_allclose(explained, 1, rtol=1e-9)
    turned = [np.asarray(matrix).copy() for matrix in dense.matrices()]
    turned[0][0, 0, 0, 1] += 0.05  # x_2 is written into x_1, which no DIAG does
    _, explained = nearest_diag(il.LinearTransformer.from_matrices(*turned), TASK)
    assert explained[0, 0] < 0.99 and explained[0, 1] == pytest.approx(1, rel=1e-9)


def test_a_dense_model_is_described_by_its_nearest_diag(rng):
    P, Q = il.LinearTransformer.from_flows(FLOWS, 2).matrices()
    found = describe(
        il.LinearTransformer.from_matrices(P, np.asarray(Q) + 1e-4 * rng.normal(size=Q.shape)),
        TASK,
        sequences=CHUNK,
    )
    assert found.kind == "full"
    assert [layer.reading for layer in found.layers][0] == "gradient step"
    assert all(layer.explained and layer.explained[1] > 0.9 for layer in found.layers)
    assert math.isfinite(found.described_loss.value)
    assert "P and Q are dense" in found.text() and "of what moves y" in found.text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: describe(il.CausalDecoder(2, 4, 1, width=4, heads=1, key=jax.random.key(0))),
            "got CausalDecoder. A decoder has nonlinear layers: .* model.hidden",
        ),
        (
            lambda: describe(il.LinearTransformer.from_matrices(*np.zeros((2, 1, 1, 3, 3)))),
            "nearest to it on a task: describe\\(model, task\\)",
        ),
        (lambda: describe(gd_plus_plus_solver(3, 2), TASK), "the model has dim 3, the data has dim 2"),
        (lambda: describe(gd_plus_plus_solver(2, 2), TASK, threshold=-1.0), "threshold must be"),
        (
            lambda: describe(gd_plus_plus_solver(2, 2), TASK, sequences=1),
            "sequences must be a whole number >= 2",
        ),
    ],
)
def test_mistakes_are_named(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call()
