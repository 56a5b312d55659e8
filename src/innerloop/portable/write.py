"""Writing a model's file: which kind, where, and what it says about itself."""

import os
from collections.abc import Mapping
from pathlib import Path

from innerloop.files import write_atomically
from innerloop.models import CausalDecoder, LinearTransformer
from innerloop.models.decoder import check_ours
from innerloop.portable.source import numpy_source

MOST_BYTES = 8 << 20  # of a Python file: editors and imports are quick below


def export(
    model: LinearTransformer | CausalDecoder,
    path: str | os.PathLike,
    *,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write the model to one file that does not need this package.

    - `FILE.py` needs only NumPy, computes in float64, and has `predict(x, y, query)`; a linear transformer's also
      `weights(x, y)`, for a context of any length, and a decoder's `predictions(xs, ys)`, one a point.
    - `FILE.onnx` computes in float32 on any number of prompts at once. A linear transformer takes x `(batch, n, dim)`,
      y `(batch, n)` and query `(batch, dim)`, and gives prediction `(batch,)` and weights `(batch, dim)`; a decoder takes
      xs `(batch, n, dim)` and ys `(batch, n)` with n up to its points, and gives predictions `(batch, n)`.

    The file is written whole or not at all.

    Args:
        path: ends in .py or .onnx; there must be no such file yet.
        about: what the file should say about itself, by name: the problem, the loss, where it comes from.

    Returns:
        The path.

    Raises:
        ValueError: the model is of another kind, or its mixers are; the path has another ending, exists, or cannot be
            written; the Python file would be larger than 8 MiB; or ONNX is not installed.
    """
    path = checked_target(path)
    if not isinstance(model, LinearTransformer | CausalDecoder):
        raise ValueError(f"model must be a linear transformer or a CausalDecoder, got {type(model).__name__}")
    if isinstance(model, CausalDecoder):
        check_ours(model, "exported files")
    content = (_python if path.suffix == ".py" else _onnx)(model, dict(about or {}))
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def checked_target(path: str | os.PathLike) -> Path:
    """The path, if a model can be exported there; errors as for `export`."""
    path = Path(path)
    if path.suffix not in (".py", ".onnx"):
        raise ValueError(f"a model is exported to a file that ends in .py or .onnx, got {path}")
    if path.exists():
        raise ValueError(f"{path} exists already; delete it, or choose another file")
    return path


def _python(model: LinearTransformer | CausalDecoder, about: dict[str, str]) -> bytes:
    content = numpy_source(model, about).encode()
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"as Python the model would be {len(content) / 2**20:.0f} MiB, more than {MOST_BYTES >> 20}: "
            "export it to a file that ends in .onnx"
        )
    return content


def _onnx(model: LinearTransformer | CausalDecoder, about: dict[str, str]) -> bytes:
    try:
        from innerloop.portable.onnx_graph import onnx_model
    except ModuleNotFoundError:
        raise ValueError('ONNX needs more packages: pip install "innerloop[onnx]"') from None
    return onnx_model(model, about).SerializeToString()
