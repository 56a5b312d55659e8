"""A trained model as one file for others: Python that needs only NumPy, or ONNX."""

from typing import TYPE_CHECKING

from innerloop.lazy import lazily

if TYPE_CHECKING:
    from innerloop.portable.source import numpy_source
    from innerloop.portable.write import checked_target, export

__all__ = ["checked_target", "export", "numpy_source"]

__getattr__ = lazily(
    __name__,
    {
        "innerloop.portable.write": ("checked_target", "export"),
        "innerloop.portable.source": ("numpy_source",),
    },
)
