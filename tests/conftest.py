"""What holds in every test: annotations are checked, warnings are errors, dtypes and ranks never promote.

Random tests draw from `key` or `rng`, both made from `--seed`; tolerances are stated beside them and leave
room for other seeds.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# Most of the time is compilation of programs that run for a moment: the same programs, not optimised, are ready in half of
# it. There is a process a core, and one thread is enough for each.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("NPROC", "1")
# Processes that run tests, and those that tests start, share what one of them has compiled; for this session only.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="innerloop-compiled-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

assert "innerloop" not in sys.modules, (
    "the annotations of a package that is imported already cannot be checked"
)
jaxtyping.install_import_hook("innerloop", "typecheck.check")

# Each ignored warning is one that this package neither causes nor can avoid; say which and why.
_IGNORED_WARNINGS: tuple[str, ...] = ()


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of the random tests (default 0)")


def pytest_configure(config):
    for line in ("error", *_IGNORED_WARNINGS):
        config.addinivalue_line("filterwarnings", line)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # No deadline: the first example of a test pays for compilation.
    hypothesis.settings.register_profile("innerloop", deadline=None, derandomize=True, max_examples=50)
    hypothesis.settings.load_profile("innerloop")


@pytest.fixture(autouse=True, scope="module")
def few_compiled_programs() -> Iterator[None]:
    """Every compiled program holds some of the 65 530 memory maps that Linux grants a process; without them, it crashes.

    A later file that needs a program again finds it in the cache on disk.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()


@pytest.fixture
def seed(request) -> int:
    return request.config.getoption("--seed")


@pytest.fixture
def key(seed) -> jax.Array:
    """A JAX key made from `--seed`."""
    return jax.random.key(seed)


@pytest.fixture
def rng(seed) -> np.random.Generator:
    """A NumPy generator made from `--seed`."""
    return np.random.default_rng(seed)


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Run without the checks of annotations, to hand in wrong types as a user may."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
