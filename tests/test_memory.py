"""What is compiled goes when the process holds too much, and not before."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.memory import _resident, shed_programs


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")
def test_programs_are_shed_beyond_the_limit_only():
    double = jax.jit(lambda x: 2 * x)
    double(jnp.ones(3))
    held = _resident()
    assert held > 50 << 20  # JAX itself
    shed_programs(beyond=2 * held)
    assert double._cache_size() == 1
    shed_programs(beyond=0)
    assert double._cache_size() == 0
    np.testing.assert_array_equal(double(jnp.ones(3)), [2, 2, 2])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")
def test_what_a_process_holds_grows_with_what_it_writes():
    before = _resident()
    kept = np.ones(32 << 20, np.uint8)
    assert 24 << 20 < _resident() - before < 64 << 20
    del kept
