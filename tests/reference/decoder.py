"""Causal mixers and a decoder layer by their definitions: one token, one head, one earlier token at a time."""

import math

import numpy as np


def softmax_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One head, `(tokens, head_dim)` each."""
    out = np.zeros_like(v)
    for i in range(len(q)):
        weights = np.exp([q[i] @ k[j] / math.sqrt(q.shape[1]) for j in range(i + 1)])
        out[i] = sum(w * v[j] for j, w in enumerate(weights / weights.sum()))
    return out


def linear_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, feature_map: str) -> np.ndarray:
    """One head, `(tokens, head_dim)` each."""
    out = np.zeros_like(v)
    scale = math.sqrt(q.shape[1])
    for i in range(len(q)):
        weights = [phi(q[i] / scale, feature_map) @ phi(k[j] / scale, feature_map) for j in range(i + 1)]
        total = i + 1 if feature_map == "identity" else max(sum(weights), 1e-6)
        out[i] = sum(w * v[j] for j, w in enumerate(weights)) / total
    return out


def phi(z: np.ndarray, feature_map: str) -> np.ndarray:
    match feature_map:
        case "relu2":
            return np.where(z > 0, z, 0) ** 2 + 1e-6
        case "elu1":
            return np.where(z > 0, z + 1, np.exp(z))
        case "exp":
            return np.exp(z)
        case "identity":
            return z
        case _:
            raise AssertionError(feature_map)


def predictions(
    p: dict[str, np.ndarray],
    mixers: list[list[str]],
    xs: np.ndarray,
    ys: np.ndarray,
    *,
    feature_map: str,
    tanh: bool,
) -> np.ndarray:
    """A decoder's predictions for one prompt, xs `(points, dim)`, ys `(points,)`.

    Args:
        p: parameters under the names of Garg et al.'s layout; what is not there is left out.
        mixers: the mixer of every head of every layer.
        tanh: whether the activation is GPT-2's approximation.
    """
    tokens = np.zeros((2 * len(xs), xs.shape[1]))
    tokens[::2], tokens[1::2, 0] = xs, ys
    h = tokens @ p["_read_in.weight"].T + p.get("_read_in.bias", 0) + p["_backbone.wpe.weight"][: len(tokens)]
    for layer, kinds in enumerate(mixers):
        at = f"_backbone.h.{layer}."
        normed = _norm(h, p, at + "ln_1")
        mixed = np.zeros_like(h)
        size = h.shape[1] // len(kinds)
        for head, kind in enumerate(kinds):
            columns = slice(head * size, (head + 1) * size)
            q, k, v = (part[:, columns] for part in np.split(_map(normed, p, at + "attn.c_attn"), 3, axis=1))
            mixed[:, columns] = (
                softmax_attention(q, k, v) if kind == "softmax" else linear_attention(q, k, v, feature_map)
            )
        h = h + _map(mixed, p, at + "attn.c_proj")
        inner = _map(_norm(h, p, at + "ln_2"), p, at + "mlp.c_fc")
        h = h + _map(_gelu(inner, tanh), p, at + "mlp.c_proj")
    if "_backbone.ln_f.weight" in p:
        h = _norm(h, p, "_backbone.ln_f")
    return (h[::2] @ p["_read_out.weight"].T + p.get("_read_out.bias", 0))[:, 0]


def _map(x, p, name):
    return x @ p[name + ".weight"] + p.get(name + ".bias", 0)


def _norm(x, p, name):
    centred = x - x.mean(1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    return unit * p[name + ".weight"] + p.get(name + ".bias", 0)


def _gelu(x, tanh):
    if tanh:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
