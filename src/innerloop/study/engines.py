"""Who does the work of a study: processes of this machine, or a Ray cluster."""

import multiprocessing
import os
import queue as queues
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from innerloop.signals import asked_to_stop
from innerloop.study.runner import Outcome, Task, do_task
from innerloop.train import Preempted

_MEMORY_PER_WORKER = 2 * 2**30
_RETRIES = 3  # of a group without progress, before it counts as failed
_GRACE = 25.0  # seconds from being asked to stop until workers are left alone: schedulers allow 30


def default_workers() -> int:
    """As many processes as there are cores that this process may use, and 2 GiB of memory for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = cores * _MEMORY_PER_WORKER
    return max(1, min(cores, memory // _MEMORY_PER_WORKER))


@dataclass
class Local:
    """Processes of this machine. One that dies is replaced, and its group goes on from its checkpoints."""

    workers: int = field(default_factory=default_workers)

    def outcomes(self, tasks: Sequence[Task], tell: Callable[[Any], None]) -> Iterator[Outcome]:
        waiting, tries = list(tasks), dict.fromkeys((task.group.name for task in tasks), 0)
        with asked_to_stop(signal.SIGTERM, signal.SIGINT) as asked:
            while waiting:
                context = multiprocessing.get_context("spawn")  # a fork would inherit JAX's threads
                messages, stop = context.Queue(), context.Event()
                pool = ProcessPoolExecutor(
                    min(self.workers, len(waiting)),
                    mp_context=context,
                    initializer=_begin,
                    initargs=(messages, stop, os.getpid()),
                )
                try:
                    pending = {pool.submit(_work, task): task for task in waiting}
                    waiting = []
                    progressed: set[str] = set()
                    for future in _ended(pending, messages, _noting(tell, progressed), asked, stop):
                        task, name = pending[future], pending[future].group.name
                        try:
                            future.result()
                            yield Outcome(task)
                        except BrokenProcessPool:
                            tries[name] = 0 if name in progressed else tries[name] + 1
                            if tries[name] > _RETRIES:
                                yield Outcome(task, "its process died again and again")
                            else:
                                waiting.append(task)
                        except Preempted:
                            continue
                        except Exception as error:  # one group's failure is not the study's
                            yield Outcome(task, f"{type(error).__name__}: {error}")
                finally:
                    stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                if asked():
                    raise Preempted


@dataclass
class Ray:
    """A Ray cluster: one group is one Ray task, retried on another node from its last checkpoint when its own is lost.

    Args:
        address: of a running cluster ("auto": found from the environment); None starts Ray on this machine.
        cpus, gpus: what a group holds while it trains; fractions are allowed.
        retries: how often a group whose node is lost begins again.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 10
    workers: int = 64

    def outcomes(self, tasks: Sequence[Task], tell: Callable[[Any], None]) -> Iterator[Outcome]:
        ray = _import_ray()
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        remote = ray.remote(do_task).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, retry_exceptions=False
        )
        pending = {remote.remote(task): task for task in tasks}
        with asked_to_stop(signal.SIGTERM, signal.SIGINT) as asked:
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1, timeout=0.5)
                for reference in done:
                    task = pending.pop(reference)
                    try:
                        ray.get(reference)
                        yield Outcome(task)
                    except Exception as error:
                        yield Outcome(task, f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
                if asked():
                    for reference in pending:
                        ray.cancel(reference, force=False)
                    raise Preempted


def _import_ray() -> Any:
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError('--engine ray needs Ray: pip install "innerloop[ray]"') from None
    return ray


def _noting(tell: Callable[[Any], None], progressed: set[str]) -> Callable[[Any], None]:
    def heard(message: tuple) -> None:
        progressed.add(message[0])
        tell(message)

    return heard


def _ended(
    pending: dict[Future, Task],
    messages: Any,
    heard: Callable[[Any], None],
    asked: Callable[[], bool],
    stop: Any,
) -> Iterator[Future]:
    """Futures as they end, with the workers' messages passed on meanwhile; all of them soon after being asked to stop."""
    left, deadline = list(pending), None
    while left:
        try:
            heard(messages.get(timeout=0.1))
            continue
        except queues.Empty:
            pass
        if asked() and deadline is None:
            stop.set()
            for future in left:
                future.cancel()
            left = [future for future in left if not future.cancelled()]
            deadline = time.monotonic() + _GRACE
        if deadline is not None and time.monotonic() > deadline:
            return
        for future in [future for future in left if future.done()]:
            left.remove(future)
            yield future


_messages: Any = None
_stop: Any = None


def _begin(messages: Any, stop: Any, driver: int) -> None:
    """What a worker process does first."""
    global _messages, _stop
    _messages, _stop = messages, stop
    # Ctrl-C reaches the whole terminal; the driver is the one to say when workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.3)
        os._exit(1)  # the driver was killed: whoever goes on with the study must find nobody at work

    threading.Thread(target=watch, daemon=True).start()


def _work(task: Task) -> None:
    do_task(task, tell=_messages.put, stop=_stop.is_set)
