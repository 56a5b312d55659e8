"""The laws of sigma: their text form, their integrals and their samples."""

import os
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop import bayes_floor
from innerloop.study import parse_spec
from innerloop.tasks import Categorical, Fixed, LinearRegression, NoiseLaw, Uniform, noise, parse_noise

levels = st.floats(min_value=0, max_value=1e6, allow_subnormal=False)
laws = st.one_of(
    levels.map(Fixed),
    st.tuples(levels, levels)
    .filter(lambda ends: ends[0] != ends[1])
    .map(lambda ends: Uniform(*sorted(ends))),
    st.lists(levels, min_size=1, max_size=5, unique=True).map(lambda values: Categorical(*values)),
)

LAWS = [Fixed(0.7), Uniform(0.0, 5.0), Uniform(1.0, 3.0), Categorical(1, 3, 5), Categorical(0, 2)]


@given(laws)
def test_parsing_inverts_printing(law: NoiseLaw):
    assert parse_noise(str(law)) == law


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("fixed(1)", Fixed(1)),
        (" Uniform ( 0 , 5 ) ", Uniform(0, 5)),
        ("uniform(0,0.5)", Uniform(0, 0.5)),
        ("categorical(1,3,5)", Categorical(1, 3, 5)),
        ("categorical(2)", Categorical(2)),
        ("FIXED(1e-3)", Fixed(0.001)),
    ],
)
def test_text_forms(text, law):
    assert parse_noise(text) == law


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"noise must be fixed\(s\), uniform\(a,b\) or categorical.*got ''"),
        ("5", r"noise must be .*got '5'"),
        ("gaussian(1)", r"noise must be .*got 'gaussian\(1\)'"),
        ("uniform(0,5", r"noise must be .*got 'uniform\(0,5'"),
        ("uniform 0,5", r"noise must be"),
        ("fixed(1) or so", r"noise must be"),
        ("fixed((1))", r"noise must be"),
        ("uniform(0;5)", r"with numbers inside"),
        ("categorical()", r"with numbers inside"),
        ("categorical(1,,3)", r"with numbers inside"),
        ("fixed(one)", r"with numbers inside, got 'fixed\(one\)'"),
        ("fixed(1,2)", r"fixed noise takes 1 number\(s\), got 2"),
        ("uniform(5)", r"uniform noise takes 2 number\(s\), got 1"),
        ("uniform(1,2,3)", r"uniform noise takes 2 number\(s\), got 3"),
        ("uniform(5,0)", r"low < high, got low=5, high=0"),
        ("uniform(2,2)", r"low < high.*for one level write fixed\(2\)"),
        ("uniform(-1,2)", r"low must be finite and >= 0.*got -1"),
        ("uniform(0,inf)", r"high must be finite and >= 0.*got inf"),
        ("fixed(-1)", r"sigma must be finite and >= 0.*got -1"),
        ("fixed(nan)", r"sigma must be finite and >= 0.*got nan"),
        ("categorical(1,-3)", r"level must be finite and >= 0.*got -3"),
        ("categorical(1,3,1)", r"needs distinct levels, got \(1\.0, 3\.0, 1\.0\)"),
    ],
)
def test_bad_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_noise(text)


def test_a_categorical_law_needs_a_level():
    with pytest.raises(ValueError, match="at least one level, got none"):
        Categorical()


def _moment(law: NoiseLaw, power: int) -> float:
    """E sigma^power, by calculus."""
    if isinstance(law, Uniform):
        top, bottom = law.high ** (power + 1), law.low ** (power + 1)
        return (top - bottom) / ((power + 1) * (law.high - law.low))
    return float(np.mean(np.array(law.arguments()) ** power))


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("nodes", [1, 4, 30])
def test_quadrature_integrates_polynomials_exactly(law, nodes):
    points, weights = law.quadrature(nodes)
    assert weights.sum() == pytest.approx(1, rel=1e-14)
    assert points.min() >= 0 and points.max() <= law.maximum
    for power in range(2 * nodes):  # Gauss: a rule of m nodes is exact up to degree 2 m - 1
        assert weights @ points**power == pytest.approx(_moment(law, power), rel=1e-12)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_second_moment(law):
    assert law.second_moment == pytest.approx(_moment(law, 2), rel=1e-13)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_samples_follow_the_law(law, key):
    """The first four moments of 40 000 draws, each within 5 standard errors (0 for a fixed level)."""
    draws = np.asarray(law.sample(key, (200, 200)), dtype=np.float64)
    assert draws.shape == (200, 200)
    assert draws.min() >= 0 and draws.max() <= np.float32(law.maximum)
    for power in range(1, 5):
        variance = _moment(law, 2 * power) - _moment(law, power) ** 2
        allowed = 5 * np.sqrt(max(variance, 0) / draws.size) + 1e-6 * _moment(law, power)
        assert abs((draws**power).mean() - _moment(law, power)) <= allowed


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_samples_have_the_dtype_asked_for(law, key):
    assert law.sample(key, (3,)).dtype == jnp.float32
    assert law.sample(key, (3,), jnp.float16).dtype == jnp.float16
    with jax.enable_x64(True):
        assert law.sample(key, (3,)).dtype == jnp.float64


def test_a_categorical_law_draws_its_levels_only(key):
    draws = np.asarray(Categorical(1, 3, 5).sample(key, (1000,)))
    assert set(draws.tolist()) == {1.0, 3.0, 5.0}


@dataclass(frozen=True)
class Pair(NoiseLaw):
    """Either of two levels, as `Categorical` has it, with the numbers (centre, half the gap)."""

    centre: float
    half_gap: float

    def sample(self, key, shape, dtype=None):
        sign = jax.random.rademacher(key, shape, dtype or float)
        return self.centre + self.half_gap * sign

    def quadrature(self, nodes):
        return self.centre + self.half_gap * np.array([-1.0, 1.0]), np.full(2, 0.5)

    @property
    def maximum(self):
        return self.centre + self.half_gap

    def arguments(self):
        return (self.centre, self.half_gap)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(noise.LAWS, "pair_1", Pair)


@pytest.mark.usefixtures("registered")
def test_a_registered_law_is_one_like_the_others():
    assert parse_noise("pair_1(2, 1)") == Pair(2, 1)
    spec = parse_spec({"task": {"noise": "pair_1(2,1)"}})
    assert spec.task.noise == "pair_1(2,1)" and spec.task.build().noise == Pair(2, 1)
    assert spec.name() == "diag-4l-d10-n20-pair_1-2-1-seed0"
    with pytest.raises(ValueError, match=r"pair_1 noise takes 2 number\(s\), got 1"):
        parse_noise("pair_1(2)")
    with pytest.raises(
        ValueError, match=r"noise must be fixed\(s\), .*, pair_1\(centre,half_gap\), got 'pair'"
    ):
        parse_noise("pair")


def test_the_floor_of_an_own_law_is_that_of_the_same_law_of_the_package():
    """Within five standard errors of two independent estimates."""
    ours, theirs = (
        bayes_floor(LinearRegression(2, 5, law), sequences=8192, seed=seed)[0]
        for seed, law in enumerate([Pair(2, 1), Categorical(1, 3)])
    )
    assert theirs.value > 0.01
    apart = np.hypot(ours.standard_error, theirs.standard_error)
    assert abs(ours.value - theirs.value) < 5 * apart


def test_a_law_without_a_text_form_says_how_to_get_one():
    with pytest.raises(ValueError, match=r"Pair has no text form: register it, LAWS\['pair'\] = Pair"):
        str(Pair(2, 1))


def test_an_installed_package_may_announce_laws(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from innerloop.tasks import Fixed\nclass Doubled(Fixed):\n  maximum = property(lambda law: 2 * law.sigma)\n"
    )
    installed = tmp_path / "mine-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[innerloop.noise_laws]\ndoubled = mine:Doubled\n")
    code = "from innerloop import parse_noise; law = parse_noise('doubled(3)'); print(law, law.maximum)"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert process.stdout == "doubled(3) 6.0\n", process.stderr
