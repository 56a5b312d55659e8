"""A model as an ONNX graph in float32, with as many prompts at a time, and of any length, as its inputs have.

The graphs are written down node by node with `onnx.helper`. A converter from JAX, jax2onnx, would bring Flax, Orbax and
some thirty packages more, for two architectures of few operations; and it follows a traced program, in which heads, masks
and layers are no longer to be seen.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from innerloop.evaluation.losses import in_precision
from innerloop.models import CausalDecoder, LinearTransformer
from innerloop.models.linear import Blockwise, Full
from innerloop.portable.source import model_name, named_arrays, writer

_OPSET = 20  # the first with Gelu; onnxruntime has it since 1.17
_IR_VERSION = 9  # the first for that opset: what old runtimes read too


def onnx_model(
    model: LinearTransformer | CausalDecoder, about: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The model as ONNX; `about` becomes its metadata. Inputs and outputs are those that `innerloop.export` names."""
    graph = _Graph()
    if isinstance(model, LinearTransformer):
        _linear(graph, model)
    else:
        _decoder(graph, model)
    found = helper.make_model(
        helper.make_graph(graph.nodes, "innerloop", graph.inputs, graph.outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name=writer(),
        doc_string=model_name(model),
    )
    helper.set_model_props(found, {"Model": model_name(model), **(about or {})})
    onnx.checker.check_model(found, full_check=True)
    return found


class _Graph:
    """A graph that grows: values are named by the order in which they come."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: list[str | int]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, value: str, shape: list[str | int]) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def whole(self, *values: int) -> str:
        """A vector of whole numbers: a shape, axes, or where a slice starts."""
        return self.constant(values, np.int64)

    def __call__(self, operation: str, *inputs: str, **attributes) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name


def _linear(graph: _Graph, model: LinearTransformer) -> None:
    """Moment form in the model's inner scale, which keeps numbers of order one in float32."""
    dim, size = model.dim, model.dim + 1
    x, y = graph.input("x", ["batch", "n", dim]), graph.input("y", ["batch", "n"])
    query = graph.input("query", ["batch", dim])
    token_scale = graph.constant(np.append(np.ones(dim), model.label_scale) / math.sqrt(model.context))
    label = graph("Unsqueeze", y, graph.whole(2))
    tokens = graph("Mul", graph("Concat", x, label, axis=2), token_scale)
    S = graph("MatMul", graph("Transpose", tokens, perm=[0, 2, 1]), tokens)
    identity = graph.constant(np.eye(size))
    T = identity
    for layer in _increments(model):
        A = graph("Add", identity, _increment(graph, layer, S))
        S = graph("MatMul", graph("MatMul", A, S), graph("Transpose", A, perm=[0, 2, 1]))
        T = graph("MatMul", A, T)
    row = graph("Slice", T, graph.whole(dim, 0), graph.whole(size, dim), graph.whole(1, 2))
    weights = graph("Div", graph("Squeeze", row, graph.whole(1)), graph.constant(-model.label_scale))
    graph.output(
        "prediction", graph("ReduceSum", graph("Mul", weights, query), graph.whole(1), keepdims=0), ["batch"]
    )
    graph.output("weights", weights, ["batch", dim])


def _increments(model: LinearTransformer) -> list[list[tuple[np.ndarray, ...]]]:
    """Of every layer: one factor `(D, D)` on S of a kind with flows, or P and Q of every head, in inner scale."""
    with jax.enable_x64(True):
        exact = in_precision(model, "float64")
        if isinstance(exact, Blockwise):
            block = (np.arange(model.dim + 1) == model.dim).astype(int)
            flows = np.asarray(exact.inner_flows())
            return [[(flow[block[:, None], block[None, :]],)] for flow in flows]
        assert isinstance(exact, Full)
        P, Q = np.asarray(exact.P), np.asarray(exact.Q)
    return [list(zip(p, q, strict=True)) for p, q in zip(P, Q, strict=True)]


def _increment(graph: _Graph, layer: list[tuple[np.ndarray, ...]], S: str) -> str:
    """sum_k P_k S Q_k."""
    if len(layer[0]) == 1:
        return graph("Mul", S, graph.constant(layer[0][0]))
    heads = [graph("MatMul", graph("MatMul", graph.constant(p), S), graph.constant(q)) for p, q in layer]
    return heads[0] if len(heads) == 1 else graph("Sum", *heads)


def _decoder(graph: _Graph, model: CausalDecoder) -> None:
    arrays = named_arrays(model)
    xs = graph.input("xs", ["batch", "n", model.dim])
    ys = graph.input("ys", ["batch", "n"])
    build = _Decoder(graph, model, arrays)
    h = build.tokens(xs, ys)
    for layer, mixer in enumerate(model.mixers):
        h = graph("Add", h, build.mix(build.norm(h, f"blocks.{layer}.norm_mix"), layer, mixer))
        inner = build.affine(build.norm(h, f"blocks.{layer}.norm_mlp"), f"blocks.{layer}.expand")
        inner = graph("Gelu", inner, approximate="tanh" if model.activation == "gelu_tanh" else "none")
        h = graph("Add", h, build.affine(inner, f"blocks.{layer}.contract"))
    if model.final_norm is not None:
        h = build.norm(h, "final_norm")
    at_x = graph("Slice", h, graph.whole(0), graph.whole(2 * model.points), graph.whole(1), graph.whole(2))
    read = build.affine(at_x, "read_out")
    graph.output("predictions", graph("Squeeze", read, graph.whole(2)), ["batch", "n"])


class _Decoder:
    """The parts of a decoder's graph; hidden states are `(batch, tokens, width)`."""

    def __init__(self, graph: _Graph, model: CausalDecoder, arrays: dict[str, np.ndarray]):
        self._graph, self._model, self._arrays = graph, model, arrays
        self._size = model.width // model.heads

    def tokens(self, xs: str, ys: str) -> str:
        """The prompt as interleaved tokens with their positions, and the mask that all layers share."""
        graph, dim = self._graph, self._model.dim
        label = graph("Unsqueeze", ys, graph.whole(2))
        label = graph("Pad", label, graph.whole(0, 0, 0, 0, 0, dim - 1))
        pair = graph("Concat", *(graph("Unsqueeze", z, graph.whole(2)) for z in (xs, label)), axis=2)
        tokens = graph("Reshape", pair, graph.whole(0, -1, dim))
        length = graph("Shape", tokens, start=1, end=2)
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        index = graph("Range", zero, graph("Squeeze", length), one)
        self._earlier = graph(
            "GreaterOrEqual",
            graph("Unsqueeze", index, graph.whole(1)),
            graph("Unsqueeze", index, graph.whole(0)),
        )
        self._index = index
        positions = graph.constant(self._arrays["positions"])
        positions = graph("Slice", positions, graph.whole(0), length, graph.whole(0))
        return graph("Add", self.affine(tokens, "read_in"), positions)

    def affine(self, x: str, name: str, columns: slice = slice(None)) -> str:
        graph = self._graph
        product = graph("MatMul", x, graph.constant(self._arrays[name + ".weight"][:, columns]))
        bias = self._arrays.get(name + ".bias")
        return product if bias is None else graph("Add", product, graph.constant(bias[columns]))

    def norm(self, x: str, name: str) -> str:
        found = [self._arrays.get(f"{name}.{part}") for part in ("weight", "bias")]
        parts = [self._graph.constant(array) for array in found if array is not None]
        return self._graph("LayerNormalization", x, *parts, axis=-1, epsilon=1e-5)

    def mix(self, x: str, layer: int, mixer: tuple) -> str:
        parts, first = [], 0
        for kind, heads in mixer:
            parts.append(self._attention(x, layer, kind, first, heads))
            first += heads
        mixed = parts[0] if len(parts) == 1 else self._graph("Concat", *parts, axis=2)
        return self.affine(mixed, f"blocks.{layer}.mixed")

    def _attention(self, x: str, layer: int, kind: str, first: int, heads: int) -> str:
        """`heads` heads of one kind, from number `first`: `(batch, tokens, heads * size)`."""
        graph, width = self._graph, self._model.width
        q, k, v = (
            self._heads(
                x, layer, slice(start + first * self._size, start + (first + heads) * self._size), heads
            )
            for start in (0, width, 2 * width)
        )
        attend = self._softmax if kind == "softmax" else self._linear
        mixed = graph("Transpose", attend(q, k, v), perm=[0, 2, 1, 3])
        return graph("Reshape", mixed, graph.whole(0, 0, heads * self._size))

    def _heads(self, x: str, layer: int, columns: slice, heads: int) -> str:
        """`(batch, heads, tokens, size)`."""
        graph = self._graph
        found = self.affine(x, f"blocks.{layer}.qkv", columns)
        return graph(
            "Transpose", graph("Reshape", found, graph.whole(0, 0, heads, self._size)), perm=[0, 2, 1, 3]
        )

    def _scaled(self, z: str) -> str:
        return self._graph("Mul", z, self._graph.constant(self._size**-0.5))

    def _scores(self, q: str, k: str, outside: float) -> str:
        """<q_i, k_j> for j <= i, and `outside` for later j."""
        graph = self._graph
        scores = graph("MatMul", q, graph("Transpose", k, perm=[0, 1, 3, 2]))
        return graph("Where", self._earlier, scores, graph.constant(outside))

    def _softmax(self, q: str, k: str, v: str) -> str:
        scores = self._scores(self._scaled(q), k, -np.inf)
        return self._graph("MatMul", self._graph("Softmax", scores, axis=-1), v)

    def _linear(self, q: str, k: str, v: str) -> str:
        graph = self._graph
        scores = self._scores(self._features(self._scaled(q)), self._features(self._scaled(k)), 0.0)
        if self._model.feature_map == "identity":
            count = graph("Add", graph("Cast", self._index, to=TensorProto.FLOAT), graph.constant(1))
            weight = graph("Unsqueeze", count, graph.whole(1))
        else:
            weight = graph("ReduceSum", scores, graph.whole(-1), keepdims=1)
            weight = graph("Max", weight, graph.constant(1e-6))
        return graph("Div", graph("MatMul", scores, v), weight)

    def _features(self, z: str) -> str:
        graph = self._graph
        match self._model.feature_map:
            case "relu2":
                positive = graph("Relu", z)
                return graph("Add", graph("Mul", positive, positive), graph.constant(1e-6))
            case "elu1":
                return graph("Add", graph("Elu", z), graph.constant(1))
            case "exp":
                return graph("Exp", z)
            case _:
                return z
