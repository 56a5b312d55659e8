"""An exported ONNX file gives the model's predictions in onnxruntime, for any number and length of prompts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import innerloop as il

pytest.importorskip("onnx", reason="could not import 'onnx': it is of the extra onnx")
runtime = pytest.importorskip("onnxruntime", reason="could not import 'onnxruntime': it is of the extra onnx")


def run(path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    given = {name: value.astype(np.float32) for name, value in inputs.items()}
    return dict(zip(names, session.run(names, given), strict=True))


def noisy(model, rng, spread: float):
    """The model with every parameter moved, so that none is zero."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + spread * rng.normal(size=leaf.shape), jnp.float32), model
    )


LINEAR = {
    "gd++": lambda key: il.LinearTransformer.gd_plus_plus(3, 2, key=key, context=7, label_scale=0.3),
    "diag": lambda key: il.LinearTransformer.diag(3, 2, 2, key=key, context=7, label_scale=0.3),
    "full": lambda key: il.LinearTransformer.full(3, 2, 1, key=key, context=7, label_scale=0.3),
    "full, two heads": lambda key: il.LinearTransformer.full(3, 2, 2, key=key),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_a_linear_transformer(kind, key, rng, tmp_path):
    """Predictions and weights of three prompts to 1e-5, at two context lengths."""
    model = noisy(LINEAR[kind](key), rng, 0.1)
    path = il.export(model, tmp_path / "model.onnx", about={"Run": "runs/mine"})
    for n in (1, 9):
        x, y, query = rng.normal(size=(3, n, 3)), rng.normal(size=(3, n)), rng.normal(size=(3, 3))
        prompt = il.Prompt(*(jnp.asarray(part, jnp.float32) for part in (x, y, query)))
        found = run(path, x=x, y=y, query=query)
        np.testing.assert_allclose(found["prediction"], model.predict(prompt), rtol=1e-5, atol=1e-5)
        weights = model.final_weights(prompt.moments())
        np.testing.assert_allclose(found["weights"], weights, rtol=1e-5, atol=1e-5)
    said = runtime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert said["Run"] == "runs/mine" and said["Model"].startswith("linear transformer")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixers": "linear"},
        {"mixers": "linear", "feature_map": "elu1", "activation": "gelu"},
        {"mixers": "softmax,linear", "feature_map": "exp", "bias": False},
        {"mixers": "softmax:1+linear:1,softmax", "feature_map": "identity", "final_layer_norm": False},
    ],
    ids=str,
)
def test_a_decoder(options, key, rng, tmp_path):
    """Predictions at every point to 1e-5; and for shorter prompts too, whose predictions are those of the longer ones."""
    model = noisy(il.CausalDecoder(3, 6, 2, width=8, heads=2, init="torch", key=key, **options), rng, 0.1)
    path = il.export(model, tmp_path / "model.onnx")
    xs, ys = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6))
    expected = eqx.filter_jit(model)(jnp.asarray(xs, jnp.float32), jnp.asarray(ys, jnp.float32))
    for n in (1, 4, 6):
        found = run(path, xs=xs[:, :n], ys=ys[:, :n])["predictions"]
        np.testing.assert_allclose(found, expected[:, :n], rtol=1e-5, atol=1e-5)
