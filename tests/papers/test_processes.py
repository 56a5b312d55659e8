"""Processes of a reproduction: what they are told about compiling, and that they share what is compiled."""

import os
import signal
import time
from pathlib import Path

import pytest

from innerloop.papers.processes import compiling, processes
from innerloop.train import Preempted

CACHE, FLAGS = "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"
LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def inverse_of_a_sum(size: int) -> tuple[float, int]:
    """Something that takes long enough to compile to be kept, and how many programs are kept when it is done."""
    import jax
    import jax.numpy as jnp

    value = jax.jit(lambda x: jnp.linalg.inv(x + jnp.eye(len(x))).sum())(jnp.ones((size, size)))
    return float(value), len(list(Path(os.environ[CACHE]).glob("*-cache")))


def test_a_second_process_compiles_nothing_that_the_first_did(monkeypatch):
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv(LEAST, "0")
    with compiling(hasty=True):
        kept = []
        for name in ("first", "second"):
            with processes(1) as pool:
                ((_, (value, count)),) = pool.outcomes({name: (inverse_of_a_sum, 4)})
            assert value == pytest.approx(4 / 5)  # the inverse of I + 11' is I - 11' / (1 + n)
            kept.append(count)
        assert kept[0] > 0 and kept[1] == kept[0]
        folder = Path(os.environ[CACHE])
    assert not folder.exists() and CACHE not in os.environ


def test_what_the_environment_says_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv(CACHE, "elsewhere")
    monkeypatch.delenv(FLAGS)
    monkeypatch.delenv(LEAST)
    with compiling(hasty=False):
        assert os.environ[CACHE] == "elsewhere" and FLAGS not in os.environ and LEAST not in os.environ
    with pytest.raises(KeyError), compiling(hasty=True):
        assert "optimization_level=0" in os.environ[FLAGS]
        raise KeyError
    assert os.environ[CACHE] == "elsewhere" and FLAGS not in os.environ


def sleep_and_say(seconds: float, where: Path) -> None:
    time.sleep(seconds)
    where.touch()


def test_who_is_stopped_does_not_wait_for_what_is_under_way(tmp_path):
    calls = {
        "short": (sleep_and_say, 0.0, tmp_path / "short"),
        "long": (sleep_and_say, 60.0, tmp_path / "long"),
    }
    with pytest.raises(Preempted, match="SIGTERM"), processes(2) as pool:
        for _ in pool.outcomes(calls):
            os.kill(os.getpid(), signal.SIGTERM)
    assert [path.name for path in tmp_path.iterdir()] == ["short"]
