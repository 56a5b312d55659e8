"""Being asked to stop: SIGTERM, which schedulers send some time before they kill."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asked_to_stop(*numbers: int) -> Iterator[Callable[[], str]]:
    """Yields the name of the first of the signals (SIGTERM by default) that has come, instead of what they would do.

    Until one has, the name is empty.

    Works in the main thread, to which Python delivers signals; elsewhere nothing is ever asked.
    """
    came: list[str] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers or (signal.SIGTERM,):
            before[number] = signal.signal(number, lambda got, _: came.append(signal.Signals(got).name))
    try:
        yield lambda: came[0] if came else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
