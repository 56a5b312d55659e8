"""Processes that train, measure and draw what a paper shows, until they are asked to stop."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import connection, parent_process
from tempfile import TemporaryDirectory
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
    """A pool of so many; when it is asked to stop they end at once, after another error with what they are doing."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit JAX's threads
    others = set(multiprocessing.active_children())
    with (
        asked_to_stop() as asked,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as executor,
    ):
        try:
            yield Pool(executor, asked)
        except BaseException as error:
            executor.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, Preempted | KeyboardInterrupt):  # else what is under way may end and is kept
                for own in set(multiprocessing.active_children()) - others:
                    own.terminate()
            raise


@contextmanager
def compiling(*, hasty: bool) -> Iterator[None]:
    """Processes that are started in the body share what one of them has compiled, in a folder that goes with it.

    Each process of a reproduction, those that train and those that measure, would compile the same programs again.

    Args:
        hasty: they do not optimise programs either, for those that run for a moment.

    What the environment says already (JAX_COMPILATION_CACHE_DIR, XLA_FLAGS) is left as it is.
    """
    with TemporaryDirectory(prefix="innerloop-programs-", ignore_cleanup_errors=True) as programs:
        settings = {}
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else the user's folder keeps what they say
            settings["JAX_COMPILATION_CACHE_DIR"] = programs
            settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        if hasty:
            settings["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
        chosen = {name: value for name, value in settings.items() if name not in os.environ}
        os.environ.update(chosen)
        try:
            yield
        finally:
            for name in chosen:
                del os.environ[name]


def _begin() -> None:
    """What a process does first: one thread for XLA, no more of an accelerator's memory than it needs, since others share
    it, and an end with its parent, however that ends."""
    one_thread_each()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parent = parent_process()
    if parent is not None:

        def end() -> None:
            connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=end, daemon=True).start()
