"""Processes that train, measure and draw what a paper shows, until they are asked to stop."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import connection, parent_process
from typing import Any

from innerloop.signals import asked_to_stop
from innerloop.threads import one_thread_each
from innerloop.train import Preempted


class Pool:
    """Processes that do what they are given until this one is asked to stop."""

    def __init__(self, executor: ProcessPoolExecutor, asked: Callable[[], str]):
        self._executor, self._asked = executor, asked

    def outcomes(self, calls: dict[str, tuple]) -> Iterator[tuple[str, Any]]:
        """Do all calls, each a function and its arguments, and give their names and results as they end.

        Raises:
            Preempted: the process was asked to stop.
        """
        pending = {self._executor.submit(*call): name for name, call in calls.items()}
        while pending:
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
            if self._asked() and pending:
                raise Preempted(self._asked())


@contextmanager
def processes(workers: int) -> Iterator[Pool]:
    """A pool of so many."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit JAX's threads
    with (
        asked_to_stop() as asked,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as executor,
    ):
        try:
            yield Pool(executor, asked)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def compiling_in_haste(hasty: bool) -> Iterator[None]:
    """If `hasty`, processes that are started in the body do not optimise what they compile, unless XLA_FLAGS is set.

    For programs that run for a moment, whose compilation is most of the time.
    """
    chosen = hasty and "XLA_FLAGS" not in os.environ
    if chosen:
        os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    try:
        yield
    finally:
        if chosen:
            del os.environ["XLA_FLAGS"]


def _begin() -> None:
    """What a process does first: one thread for XLA, and an end with its parent, however that ends."""
    one_thread_each()
    parent = parent_process()
    if parent is not None:

        def end() -> None:
            connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=end, daemon=True).start()
