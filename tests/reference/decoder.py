"""Causal mixers and a decoder layer by their definitions: one token, one head, one earlier token at a time."""

import math

import numpy as np


def softmax_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One head, `(tokens, head_dim)` each."""
    return _mixed(softmax_weights(q, k), v)


def softmax_weights(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    weights = np.zeros((len(q), len(q)))
    for i in range(len(q)):
        scores = np.exp([q[i] @ k[j] / math.sqrt(q.shape[1]) for j in range(i + 1)])
        weights[i, : i + 1] = scores / scores.sum()
    return weights


def linear_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, feature_map: str) -> np.ndarray:
    """One head, `(tokens, head_dim)` each."""
    return _mixed(linear_weights(q, k, feature_map), v)


def linear_weights(q: np.ndarray, k: np.ndarray, feature_map: str) -> np.ndarray:
    weights = np.zeros((len(q), len(q)))
    scale = math.sqrt(q.shape[1])
    for i in range(len(q)):
        scores = [phi(q[i] / scale, feature_map) @ phi(k[j] / scale, feature_map) for j in range(i + 1)]
        total = i + 1 if feature_map == "identity" else max(sum(scores), 1e-6)
        weights[i, : i + 1] = np.array(scores) / total
    return weights


def _mixed(weights: np.ndarray, v: np.ndarray) -> np.ndarray:
    out = np.zeros_like(v)
    for i in range(len(v)):
        out[i] = sum(weights[i, j] * v[j] for j in range(i + 1))
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


def predictions(p, mixers, xs, ys, *, feature_map: str, tanh: bool) -> np.ndarray:
    """A decoder's predictions for one prompt; arguments as for `inside`."""
    h = inside(p, mixers, xs, ys, feature_map=feature_map, tanh=tanh)[0][-1]
    if "_backbone.ln_f.weight" in p:
        h = _norm(h, p, "_backbone.ln_f")
    return (h[::2] @ p["_read_out.weight"].T + p.get("_read_out.bias", 0))[:, 0]


def inside(
    p: dict[str, np.ndarray],
    mixers: list[list[str]],
    xs: np.ndarray,
    ys: np.ndarray,
    *,
    feature_map: str,
    tanh: bool,
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """All tokens of a decoder for one prompt, xs `(points, dim)`, ys `(points,)`, before the first layer and after each;
    and every layer's and head's weights of tokens.

    Args:
        p: parameters under the names of Garg et al.'s layout; what is not there is left out.
        mixers: the mixer of every head of every layer.
        tanh: whether the activation is GPT-2's approximation.
    """
    tokens = np.zeros((2 * len(xs), xs.shape[1]))
    tokens[::2], tokens[1::2, 0] = xs, ys
    h = tokens @ p["_read_in.weight"].T + p.get("_read_in.bias", 0) + p["_backbone.wpe.weight"][: len(tokens)]
    states, attended = [h], []
    for layer, kinds in enumerate(mixers):
        at = f"_backbone.h.{layer}."
        normed = _norm(h, p, at + "ln_1")
        mixed = np.zeros_like(h)
        size = h.shape[1] // len(kinds)
        attended.append([])
        for head, kind in enumerate(kinds):
            columns = slice(head * size, (head + 1) * size)
            q, k, v = (part[:, columns] for part in np.split(_map(normed, p, at + "attn.c_attn"), 3, axis=1))
            weights = softmax_weights(q, k) if kind == "softmax" else linear_weights(q, k, feature_map)
            mixed[:, columns] = _mixed(weights, v)
            attended[-1].append(weights)
        h = h + _map(mixed, p, at + "attn.c_proj")
        inner = _map(_norm(h, p, at + "ln_2"), p, at + "mlp.c_fc")
        h = h + _map(_gelu(inner, tanh), p, at + "mlp.c_proj")
        states.append(h)
    return states, attended


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
