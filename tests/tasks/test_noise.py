"""The laws of sigma: their text form, their integrals and their samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.tasks import Categorical, Fixed, NoiseLaw, Uniform, parse_noise

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
