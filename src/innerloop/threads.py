"""How many threads JAX's CPU backend has of its own."""

import os


def one_thread_each() -> None:
    """Let this process, and those it starts, run XLA's CPU programs on one thread, unless NPROC says otherwise.

    Programs of matrices of a dozen rows have nothing to hand to a second thread: two pass each product to and fro, and
    keep the cores from the processes beside. To be called before JAX has a backend; later it does nothing.
    """
    os.environ.setdefault("NPROC", "1")  # read by XLA where it sizes its pools
