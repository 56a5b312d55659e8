"""An exported Python file gives the model's predictions where there is nothing but NumPy."""

import json
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import innerloop as il
from innerloop.portable import numpy_source, write
from innerloop.predictors import OLS
from innerloop.types import Prompt

# What a stranger does with the file: no path leads to this package or to JAX.
ALONE = """\
import importlib.util, json, sys
import numpy as np
spec = importlib.util.spec_from_file_location("exported", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
asked = json.loads(sys.stdin.read())
answer = [np.asarray(getattr(module, name)(*map(np.array, values))).tolist() for name, *values in asked]
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"jax", "jaxlib", "equinox", "scipy", "innerloop", "onnx"})
print(json.dumps([answer, loaded, module.__doc__]))
"""


def alone(path: Path, *asked: list) -> tuple[list[np.ndarray], str]:
    """The answers of the file's functions in a process of its own, and its docstring."""
    given_in = json.dumps(
        [[name, *(np.asarray(value).tolist() for value in values)] for name, *values in asked]
    )
    command = [sys.executable, "-W", "error", "-c", ALONE, str(path)]
    done = subprocess.run(command, input=given_in, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer, loaded, about = json.loads(done.stdout)
    assert loaded == []
    return [np.array(each) for each in answer], about


def inside(model, about=None) -> dict:
    """The exported module's names, in this process."""
    names: dict = {}
    exec(compile(numpy_source(model, about), "exported", "exec"), names)
    return names


def noisy(model, rng, spread: float):
    """The model in float64 with every parameter moved, so that none is zero."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + spread * rng.normal(size=leaf.shape)), model
    )


def linear(kind: str, dim: int, layers: int, heads: int, rng):
    """A model with random parameters, small enough for its predictions to be of order one."""
    options = {"key": jax.random.key(0), "context": 7, "label_scale": 0.3}
    if kind == "gd++":
        return noisy(il.LinearTransformer.gd_plus_plus(dim, layers, **options), rng, 0.1)
    make = {"full": il.LinearTransformer.full, "diag": il.LinearTransformer.diag}[kind]
    return noisy(make(dim, layers, heads, **options), rng, 0.1)


def draw(rng, n: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rng.normal(size=(n, dim)), rng.normal(size=n), rng.normal(size=dim)


KINDS = [("gd++", 1), ("diag", 1), ("diag", 2), ("full", 1), ("full", 2)]


@pytest.mark.parametrize(("kind", "heads"), KINDS)
def test_a_linear_transformers_file_runs_alone(kind, heads, x64, rng, tmp_path):
    """Predictions and weights to 1e-9; several queries at once; and the docstring says what it is."""
    model = linear(kind, 3, 2, heads, rng)
    path = il.export(model, tmp_path / "model.py", about={"Problem": 'a \\ and """quotes"""'})
    x, y, query = draw(rng, 9, 3)
    found, about = alone(path, ["predict", x, y, query], ["predict", x, y, [query, x[0]]], ["weights", x, y])
    prompt = Prompt(x=jnp.asarray(x), y=jnp.asarray(y), query=jnp.asarray(query))
    weights = np.asarray(model.final_weights(prompt.moments()))
    np.testing.assert_allclose(found[0], float(model.predict(prompt)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], [query @ weights, x[0] @ weights], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[2], weights, rtol=1e-9, atol=1e-12)
    assert f"Model: linear transformer, {kind}, 2 layers" in about
    assert "Problem: a \\ and '''quotes'''" in about


@settings(max_examples=15)
@given(
    st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(0, 2**31)
)
def test_any_shape_agrees_with_the_token_form(kind, dim, layers, n, seed):
    """Weights to 1e-9 of those that tokens, run in NumPy, end with."""
    from reference.linear import implicit_weights

    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        model = linear(kind[0], dim, layers, kind[1], rng)
        P, Q = map(np.asarray, model.matrices())
    x, y, _ = draw(rng, n, dim)
    expected = implicit_weights(P, Q, np.column_stack([x, y]))[-1]
    found = inside(model)["weights"](x, y)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * max(1, np.abs(expected).max()))


def decoder(rng, **options):
    made = il.CausalDecoder(3, 6, 2, width=8, heads=2, init="torch", key=jax.random.key(0), **options)
    return noisy(made, rng, 0.3)


DECODERS = [
    {},
    {"mixers": "linear"},
    {"mixers": "linear", "feature_map": "elu1", "activation": "gelu"},
    {"mixers": "softmax,linear", "feature_map": "exp", "bias": False},
    {"mixers": "softmax:1+linear:1,softmax", "feature_map": "identity", "final_layer_norm": False},
]


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_a_decoders_function_is_the_model(options, x64, rng):
    """To 1e-9 at every point; and for shorter prompts too, whose predictions are those of the longer one."""
    model = decoder(rng, **options)
    names = inside(model)
    x, y, _ = draw(rng, 6, 3)
    expected = np.asarray(eqx.filter_jit(model)(jnp.asarray(x), jnp.asarray(y)))
    for n in (1, 4, 6):
        found = names["predictions"](x[:n], y[:n])
        np.testing.assert_allclose(found, expected[:n], rtol=1e-9, atol=1e-9)


def test_a_decoders_file_runs_alone(x64, rng, tmp_path):
    model = decoder(rng, mixers="softmax:1+linear:1", activation="gelu")
    x, y, query = draw(rng, 5, 3)
    found, about = alone(
        il.export(model, tmp_path / "model.py"), ["predict", x, y, query], ["predict", x, y, [query, x[0]]]
    )
    prompt = Prompt(x=jnp.asarray(x), y=jnp.asarray(y), query=jnp.asarray(query))
    expected = float(eqx.filter_jit(model.predict)(prompt))
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)
    np.testing.assert_allclose(found[1][0], expected, rtol=1e-9)
    assert "causal decoder, 2 layers, width 8, 2 heads, d = 3, up to 6 points" in about
    with pytest.raises(ValueError, match="at most 6 points, got 7"):
        inside(model)["predict"](*draw(rng, 6, 3))


def test_float32_parameters_are_written_exactly(rng):
    """A diag model's flows, and a decoder's arrays, come back bit for bit."""
    model = il.LinearTransformer.from_flows(rng.normal(size=(2, 2, 2)), 3)
    flows = np.asarray(model.flows())
    np.testing.assert_array_equal(inside(model)["FLOWS"].astype(np.float32), flows.reshape(-1, 4))
    made = il.CausalDecoder(3, 6, 1, width=8, heads=2, key=jax.random.key(1))
    packed = inside(made)["PARAMETERS"]
    np.testing.assert_array_equal(packed["blocks.0.qkv.weight"], made.blocks[0].qkv.weight)
    np.testing.assert_array_equal(packed["positions"], made.positions)


def test_a_large_decoder_is_referred_to_onnx_and_nothing_is_written(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MOST_BYTES", 1000)
    made = il.CausalDecoder(3, 6, 1, width=8, heads=2, key=jax.random.key(1))
    with pytest.raises(ValueError, match="more than 0: export it to a file that ends in .onnx"):
        il.export(made, tmp_path / "model.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.txt", "a file that ends in .py or .onnx, got .*model.txt"),
        ("there.py", "there.py exists already"),
        ("no/where.py", "cannot write .*where.py: No such file or directory"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(name, message, tmp_path):
    (tmp_path / "there.py").write_text("mine")
    model = il.LinearTransformer.from_flows(np.zeros((1, 2, 2)), 3)
    with pytest.raises(ValueError, match=message):
        il.export(model, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine"


def test_only_models_are_exported(unchecked, tmp_path):
    task = il.LinearRegression(3, 8, "fixed(1)")
    with pytest.raises(ValueError, match="a linear transformer or a CausalDecoder, got OLS"):
        il.export(OLS(task), tmp_path / "model.py")
