"""Being asked to stop: SIGTERM, which schedulers send some time before they kill."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_stop(*numbers: int) -> Iterator[Callable[[], bool]]:
    """Yields whether one of the signals (SIGTERM by default) has come, instead of what they would do.

    Works in the main thread, to which Python delivers signals; elsewhere nothing is ever asked.
    """
    asked = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers or (signal.SIGTERM,):
            before[number] = signal.signal(number, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
