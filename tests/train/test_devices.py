"""One run over several devices, against the same arithmetic on one."""

import subprocess
import sys

import pytest

from innerloop.models import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import Training, fit

_FOUR_DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_enable_x64", True)
import innerloop as il
from innerloop.train.first_order import FirstOrder, _update_rule
from innerloop.train.objectives import draw

task = il.LinearRegression(3, 6, "uniform(0,1)")
model = il.LinearTransformer.diag(3, 2, key=jax.random.key(0), label_scale=0.5)
model = jax.tree.map(lambda leaf: leaf.astype("float64"), model)
trainer = FirstOrder(model, task, "sampled", steps=20, batch=32, temper=None, devices=4, interval=20, data_seed=3)
shared = trainer.advance(trainer.start())[0].carry[0]

rule = _update_rule("adam", 20)
state = rule.init(model)
gradient = jax.jit(jax.grad(lambda m, e: e.losses(m.final_weights(e.moments)).mean()))
for step in range(20):
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), step), 4)
    parts = [gradient(model, draw(task, "sampled", key, 8)) for key in keys]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *parts)
    updates, state = rule.update(mean, state, model)
    model = jax.tree.map(lambda leaf, update: leaf + 0.01 * update, model, updates)
for mine, theirs in zip(jax.tree.leaves(shared), jax.tree.leaves(model)):
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
print(len(jax.devices()), "devices agree")
"""


def test_four_devices_take_the_mean_of_their_gradients():
    """20 updates of Adam in float64, to 1e-9; a process of its own, for devices are counted when JAX starts."""
    run = subprocess.run([sys.executable, "-c", _FOUR_DEVICES], capture_output=True, text=True, timeout=200)
    assert run.stdout.strip() == "4 devices agree", run.stderr


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch must be a multiple of devices, got batch 10, devices 4"):
        Training(batch=10, devices=4)


def test_more_devices_than_there_are_are_refused(key):
    model = LinearTransformer.diag(2, 1, key=key)
    with pytest.raises(ValueError, match="devices must be at most 1, the devices of this host, got 64"):
        fit(model, LinearRegression(2, 4, "fixed(1)"), optimizer="adam", steps=1, batch=64, devices=64)
