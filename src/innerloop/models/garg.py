"""A decoder's parameters in the layout of Garg et al.'s public code (github.com/dtsipras/in-context-learning).

There the layers are transformers' GPT2Model, whose maps (Conv1D) keep weights as (inputs, outputs), as here; what reads
tokens in and out is PyTorch's Linear, (outputs, inputs).
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from innerloop.models.decoder import CausalDecoder

READ_IN, READ_OUT = "_read_in", "_read_out"
POSITIONS = "_backbone.wpe.weight"
_LINEAR = (READ_IN + ".weight", READ_OUT + ".weight")

_BLOCK = {
    "norm_mix": "ln_1",
    "qkv": "attn.c_attn",
    "mixed": "attn.c_proj",
    "norm_mlp": "ln_2",
    "expand": "mlp.c_fc",
    "contract": "mlp.c_proj",
}
# The token embedding, which vectors that are handed in bypass, and causal masks that older versions stored.
_UNUSED = re.compile(r"_backbone\.wte\.weight|_backbone\.h\.\d+\.attn\.(bias|masked_bias)")


def checked(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The used entries as NumPy arrays, after a look at those that tell the sizes.

    Raises:
        ValueError: an entry that tells a size is missing or has the wrong number of axes.
    """
    arrays = {name: _array(value) for name, value in state_dict.items() if not _UNUSED.fullmatch(name)}
    for name in (READ_IN + ".weight", POSITIONS, "_backbone.h.0.mlp.c_fc.weight"):
        if name not in arrays:
            raise ValueError(
                f"the state dict must have {name!r}, got {', '.join(sorted(arrays)) or 'nothing'}"
            )
        if arrays[name].ndim != 2:
            raise ValueError(f"{name} must have two axes, got shape {arrays[name].shape}")
    if len(arrays[POSITIONS]) % 2:
        raise ValueError(f"{POSITIONS} must have two rows a point, got {len(arrays[POSITIONS])} rows")
    return arrays


def depth(arrays: Mapping[str, np.ndarray]) -> int:
    """How many layers the state dict has."""
    return 1 + max(int(found[1]) for name in arrays if (found := re.match(r"_backbone\.h\.(\d+)\.", name)))


def filled(shell: "CausalDecoder", arrays: Mapping[str, np.ndarray]) -> "CausalDecoder":
    """The decoder `shell` with these parameters.

    Raises:
        ValueError: a parameter is missing, of another shape than the shell's, or unknown.
    """
    names = _names(shell)
    unknown = sorted(set(arrays) - set(names))
    if unknown:
        raise ValueError(f"the state dict has entries that the layout has not: {', '.join(unknown)}")
    leaves, structure = jax.tree.flatten(shell)
    filled = []
    for name, leaf in zip(names, leaves, strict=True):
        if name not in arrays:
            raise ValueError(f"the state dict must have {name!r}")
        array = _turned(name, arrays[name])
        if array.shape != leaf.shape:
            shape = leaf.shape[::-1] if name in _LINEAR else leaf.shape
            raise ValueError(f"{name} must have shape {shape}, got {arrays[name].shape}")
        filled.append(jnp.asarray(array, leaf.dtype))
    return jax.tree.unflatten(structure, filled)


def exported(decoder: "CausalDecoder") -> dict[str, np.ndarray]:
    """The decoder's parameters under their names in the layout."""
    named = zip(_names(decoder), jax.tree.leaves(decoder), strict=True)
    return {name: _turned(name, np.asarray(leaf)) for name, leaf in named}


def _names(decoder: "CausalDecoder") -> list[str]:
    """The layout's name of every parameter, in the order of the decoder's leaves."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(decoder)]
    return [_name(path) for path in paths]


def _name(path: str) -> str:
    """`.blocks[2].qkv.weight` -> `_backbone.h.2.attn.c_attn.weight`."""
    if path == ".positions":
        return POSITIONS
    if found := re.fullmatch(r"\.blocks\[(\d+)\]\.(\w+)\.(\w+)", path):
        return f"_backbone.h.{found[1]}.{_BLOCK[found[2]]}.{found[3]}"
    part, kind = path[1:].split(".")
    return {"read_in": READ_IN, "read_out": READ_OUT, "final_norm": "_backbone.ln_f"}[part] + f".{kind}"


def _turned(name: str, array: np.ndarray) -> np.ndarray:
    return array.T if name in _LINEAR else array


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
