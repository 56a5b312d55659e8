"""Threads on a CPU: those of XLA's programs, and those that run several programs at a time."""

import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_thread_each() -> None:
    """Let this process, and those it starts, run one program at a time on one thread, unless NPROC says otherwise.

    Programs of matrices of a dozen rows have nothing to hand to a second thread: two pass each product to and fro, and
    keep the cores from the processes beside. To be called before JAX has a backend; later it does nothing.
    """
    os.environ.setdefault("NPROC", "1")  # read by XLA where it sizes its pools


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, compiled: Hashable = None
) -> list[Result]:
    """`function` of every item, in order, on as many threads as there are cores: for compiled programs, which need no
    interpreter while they run. On an accelerator, and in a process that shares its cores with others, one after another.

    Args:
        compiled: names the programs that `function` runs. The first time that a name is seen, or without one, the first
            item goes alone, so that nothing is compiled twice.
    """
    import jax

    items = list(items)
    double = jax.config.read("jax_enable_x64")
    alone = 0 if compiled is not None and (compiled, double) in _COMPILED else 1
    threads = min(int(os.environ.get("NPROC", cores())), len(items) - alone)
    if threads < 2 or jax.default_backend() != "cpu":
        return [function(item) for item in items]

    def alike(item):
        with jax.enable_x64(double):  # each thread has its own
            return function(item)

    first = [function(item) for item in items[:alone]]
    _COMPILED.add((compiled, double))
    return [*first, *_pool(threads).map(alike, items[alone:])]


_COMPILED: set[Hashable] = set()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="innerloop")
