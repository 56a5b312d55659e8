"""Who does the work of a study: processes of this machine, or a Ray cluster."""

import multiprocessing
import os
import queue as queues
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from innerloop.memory import shed_programs
from innerloop.signals import asked_to_stop
from innerloop.study.runner import Outcome, Task, do_task
from innerloop.threads import cores, one_thread_each
from innerloop.train import Preempted

_MEMORY_PER_WORKER = 2 * 2**30
_RETRIES = 3  # of a group without progress, before it counts as failed
_GRACE = 25.0  # seconds from being asked to stop until workers are left alone: schedulers allow 30


def default_workers() -> int:
    """As many processes as there are cores that this process may use, and 2 GiB of memory for each."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = cores() * _MEMORY_PER_WORKER
    return max(1, min(cores(), memory // _MEMORY_PER_WORKER))


@dataclass
class Local:
    """Processes of this machine. One that dies is replaced, and its group goes on from its checkpoints.

    Each process has a pipe of its own and shares nothing else: no lock that a killed one could leave closed to the others.
    """

    workers: int = field(default_factory=default_workers)

    def outcomes(self, tasks: Sequence[Task], tell: Callable[[Any], None]) -> Iterator[Outcome]:
        waiting, tries = deque(tasks), dict.fromkeys((task.group.name for task in tasks), 0)
        workers: list[_Worker] = []
        deadline = None
        with asked_to_stop(signal.SIGTERM, signal.SIGINT) as asked:
            try:
                while waiting or any(worker.task for worker in workers):
                    if asked() and deadline is None:
                        deadline = time.monotonic() + _GRACE
                        for worker in workers:
                            worker.send(None)
                    if deadline is None:
                        _busy(workers, waiting, self.workers)
                    elif time.monotonic() > deadline or not any(worker.task for worker in workers):
                        raise Preempted(asked())
                    for worker in _heard(workers):
                        try:
                            kind, content = worker.connection.recv()
                        except (EOFError, OSError):  # it died, perhaps in the middle of a message
                            kind, content = "died", "its process died again and again"
                        task = worker.task
                        if kind == "told":
                            worker.progressed = True
                            tell(content)
                            continue
                        worker.task = None
                        if kind in ("died", "stopped"):
                            workers.remove(worker)
                            worker.close()
                        if task is None:
                            continue
                        name = task.group.name
                        if kind == "died":
                            tries[name] = 0 if worker.progressed else tries[name] + 1
                        if kind == "stopped" or (kind == "died" and tries[name] <= _RETRIES):
                            waiting.appendleft(task)
                        else:
                            yield Outcome(task, content)
            finally:
                for worker in workers:
                    worker.close()


class _Worker:
    """A process that does one task after another, as its driver knows it."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")  # a fork would inherit JAX's threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.task: Task | None = None
        self.progressed = False
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def send(self, task: Task | None) -> None:
        """Give it a task to do; None asks it to save and end."""
        if task is not None:
            self.task, self.progressed = task, False
        with suppress(OSError):  # it is dead, which its end of the pipe will say
            self.connection.send(task)

    def close(self) -> None:
        """End it at once: what it has not saved is in its group's checkpoints but for some seconds of work."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _busy(workers: list[_Worker], waiting: deque[Task], most: int) -> None:
    """Give waiting tasks to idle processes, and to new ones where there are too few."""
    while waiting:
        idle = next((worker for worker in workers if worker.task is None), None)
        if idle is None:
            if len(workers) >= most:
                return
            workers.append(idle := _Worker())
        idle.send(waiting.popleft())


def _heard(workers: list[_Worker]) -> list[_Worker]:
    """Those that have something to say, after a moment at most."""
    ready = wait([worker.connection for worker in workers], timeout=0.1)
    return [worker for worker in workers if worker.connection in ready]


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

    def outcomes(self, tasks: Sequence[Task], tell: Callable[[Any], None]) -> Iterator[Outcome]:
        ray = _import_ray()
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        remote = ray.remote(_do_in_ray).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, retry_exceptions=False
        )
        with asked_to_stop(signal.SIGTERM, signal.SIGINT) as asked:
            pending = {remote.remote(_anywhere(task)): task for task in tasks}
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
                    # Their last states are saved, and pushed, before this process takes its cluster down.
                    ray.wait(list(pending), num_returns=len(pending), timeout=_GRACE)
                    raise Preempted(asked())


def _anywhere(task: Task) -> Task:
    """With a folder that means the same on every node, where Ray was started in whatever directory."""
    return task if isinstance(task.folder, str) else replace(task, folder=task.folder.absolute())


def _do_in_ray(task: Task) -> None:
    """A group as a Ray task, which Ray cancels by an interrupt: the interval that is running is the last one then."""
    one_thread_each()
    with asked_to_stop(signal.SIGINT) as asked:
        do_task(task, stop=lambda: bool(asked()))


def _import_ray() -> Any:
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError('--engine ray needs Ray: pip install "innerloop[ray]"') from None
    return ray


def _serve(connection: Connection) -> None:
    """What a worker process does: tasks from its driver's pipe, until it is told to end or the driver is gone."""
    one_thread_each()
    stop, tasks = threading.Event(), queues.SimpleQueue()

    def end(*_: object) -> None:
        stop.set()
        tasks.put(None)

    # Ctrl-C reaches the whole terminal; the driver is the one to say when workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)

    def listen() -> None:
        try:
            while (task := connection.recv()) is not None:
                tasks.put(task)
        except (EOFError, OSError):
            os._exit(1)  # the driver was killed: whoever goes on with the study must find nobody at work
        end()
        listen()  # for the driver's end

    def say(kind: str, content: Any = None) -> None:
        try:
            connection.send((kind, content))
        except OSError:
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while (task := tasks.get()) is not None:
        try:
            do_task(task, tell=partial(say, "told"), stop=stop.is_set)
            say("done")
        except Preempted:
            say("stopped")
        except Exception as error:  # one group's failure is not the study's
            say("failed", f"{type(error).__name__}: {error}")
        shed_programs()
