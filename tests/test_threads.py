"""Work on several threads is the work of one, in order and in the caller's precision."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import innerloop as il
from innerloop.threads import in_threads
from innerloop.train import second_order
from innerloop.train.objectives import draw_many


@pytest.fixture
def three_cores(monkeypatch):
    monkeypatch.setenv("NPROC", "3")


@pytest.mark.parametrize("double", [False, True])
def test_results_are_in_order_in_the_callers_precision_and_come_from_several_threads(three_cores, double):
    together, seen = threading.Barrier(2, timeout=60), set()

    def work(item: int):
        if item > 0:
            together.wait()  # passes when two are at work at a time
        seen.add(threading.current_thread())
        return item, jnp.zeros(()).dtype

    with jax.enable_x64(double):
        found = in_threads(work, range(7))
    assert found == [(item, np.dtype("float64" if double else "float32")) for item in range(7)]
    assert len(seen) > 1


def test_what_is_not_compiled_yet_runs_once_before_the_others(three_cores):
    running, most = [], []

    def work(item: int):
        running.append(item)
        most.append(len(running))
        running.remove(item)
        return item

    in_threads(work, range(2), compiled="a test")  # one alone, then one more: never two
    assert most == [1, 1]


def test_errors_come_through(three_cores):
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 // (3 - item), range(5))


def test_draws_training_and_evaluation_have_the_same_bits_on_one_thread_and_on_three(x64, key, monkeypatch):
    task = il.LinearRegression(2, 6, "uniform(0,2)")
    model = il.LinearTransformer.diag(2, 2, 2, key=key)

    def everything():
        examples = draw_many(task, "bayes", key, 3 * 4096)
        theta, weights = second_order.flat(model), np.full(3 * 4096, 1.0)
        r = np.asarray(examples.residuals(second_order._weights(model, theta, examples)))
        evaluation = il.evaluate(model, task, sequences=40_000)
        return [
            examples.target,
            *second_order._normal_equations(model, theta, examples, r, weights),
            np.array([evaluation.adjusted_loss.value, evaluation.floor.value]),
        ]

    one = everything()
    monkeypatch.setenv("NPROC", "3")
    for several, alone in zip(everything(), one, strict=True):
        np.testing.assert_array_equal(several, alone)
