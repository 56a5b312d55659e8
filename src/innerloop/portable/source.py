"""A model as the text of a Python module that needs only NumPy."""

import base64
import textwrap
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import jax
import jinja2
import numpy as np

from innerloop.evaluation.losses import in_precision
from innerloop.models import CausalDecoder, LinearTransformer
from innerloop.models.linear import Blockwise


def numpy_source(model: LinearTransformer | CausalDecoder, about: Mapping[str, str] | None = None) -> str:
    """The module that `innerloop.export` writes to a .py file; `about` becomes part of its docstring."""
    said = {"Model": model_name(model), **(about or {}), "Written by": writer()}
    parts = {"about": {name: _in_docstring(value) for name, value in said.items()}}
    if isinstance(model, LinearTransformer):
        return _template("linear.py.jinja").render(parts | _linear(model))
    return _template("decoder.py.jinja").render(parts | _decoder(model))


def model_name(model: LinearTransformer | CausalDecoder) -> str:
    """The model in a few words."""
    layers = f"{model.layers} layer{'s' if model.layers > 1 else ''}"
    if isinstance(model, LinearTransformer):
        heads = f"{model.heads} head{'s' if model.heads > 1 else ''}"
        return f"linear transformer, {model.kind}, {layers}, {heads}, d = {model.dim}"
    sizes = f"width {model.width}, {model.heads} heads, d = {model.dim}, up to {model.points} points"
    return f"causal decoder, {layers}, {sizes}"


def writer() -> str:
    """This package and its version."""
    try:
        return f"innerloop {version('innerloop')}"
    except PackageNotFoundError:
        return "innerloop"


def named_arrays(model: CausalDecoder) -> dict[str, np.ndarray]:
    """A decoder's parameters by their path: `blocks.0.qkv.weight`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _linear(model: LinearTransformer) -> dict:
    with jax.enable_x64(True):
        exact = in_precision(model, "float64")
        if isinstance(exact, Blockwise):
            return {"flows": _literal(np.asarray(exact.flows()).reshape(-1, 4))}
        P, Q = exact.matrices()
        return {"flows": None, "P": _literal(np.asarray(P)), "Q": _literal(np.asarray(Q))}


def _decoder(model: CausalDecoder) -> dict:
    arrays = named_arrays(model)
    dtype = np.result_type(*arrays.values())
    packed = zlib.compress(b"".join(array.astype(dtype).tobytes() for array in arrays.values()), 9)
    return {
        "model": model,
        "shapes": {name: array.shape for name, array in arrays.items()},
        "dtype": dtype.newbyteorder("<").str,
        "data": textwrap.wrap(base64.b64encode(packed).decode(), 100),
        "kinds": {kind for mixer in model.mixers for kind, _ in mixer},
    }


def _literal(array: np.ndarray) -> str:
    """The array as Python writes it, with the digits that give it back exactly."""
    with np.printoptions(threshold=array.size + 1, floatmode="unique", linewidth=110):
        return np.array2string(array, separator=", ")


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


@cache
def _template(name: str) -> jinja2.Template:
    loader = jinja2.PackageLoader("innerloop", "portable")
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
