"""Memory of a process that trains or measures models of many shapes, one after another."""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

_MUCH = 3 << 29  # 1.5 GiB


def shed_programs(beyond: int = _MUCH) -> None:
    """Forget all that JAX has compiled if this process holds more than `beyond` bytes; elsewhere than on Linux do nothing.

    A compiled program is kept as long as the process, some ten megabytes of it, though the next models may be of another
    shape. One that is wanted again is compiled again, or read from JAX's persistent cache.
    """
    import jax

    if _resident() <= beyond:
        return
    jax.clear_caches()
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)  # what is free it would keep for later


def _resident() -> int:
    """Bytes of this process in memory, 0 where the system does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))
    return 0
