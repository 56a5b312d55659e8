# %% [markdown]
# # A linear against a softmax decoder, in a minute
#
# Two causal decoders that differ in their attention only learn noise-free regression from the same sequences, drawn
# fresh. The question is how good each is after so many examples. They are tiny and trained for a moment: the curves
# say how to measure, not which attention is better. For that see the reproduction of Goel et al. (2026).

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import polars as pl

import innerloop as il
from innerloop import figures
from innerloop.predictors import OLS

DIM, POINTS, STEPS, BATCH = 2, 6, 300, 64
task = il.LinearRegression(DIM, POINTS - 1, "fixed(0)")


def sequences(key, batch):
    """Inputs `(batch, points, dim)` and labels `(batch, points)`: the query is the last point."""
    prompts = task.sample_prompts(key, batch)
    xs = jnp.concatenate([prompts.x, prompts.query[:, None]], axis=1)
    return xs, jnp.concatenate([prompts.y, prompts.label[:, None]], axis=1)


# %% [markdown]
# A decoder predicts at every point from those before it, so one pass trains all lengths of context at once. The loop
# below takes any function `sequences`, also one that is not linear.


# %%
def trained(mixers, seed=0):
    model = il.CausalDecoder(
        DIM, POINTS, layers=2, mixers=mixers, width=32, heads=2, key=jax.random.key(seed)
    )
    optimizer = optax.adam(3e-3)

    def loss(model, key):
        xs, ys = sequences(key, BATCH)
        return jnp.square(model(xs, ys) - ys).mean()

    @eqx.filter_jit
    def run(model):
        def update(carry, key):
            model, state = carry
            value, gradient = jax.value_and_grad(loss)(model, key)
            with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers
                updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(model, updates), state), value

        keys = jax.random.split(jax.random.key(seed + 1), STEPS)
        return jax.lax.scan(update, (model, optimizer.init(model)), keys)

    (model, _), losses = run(model)
    return model, losses


models = {}
for mixers in ("softmax", "linear"):
    models[mixers], losses = trained(mixers)
    print(
        f"{mixers}: squared error {losses[0]:.2f} at the first step, {losses[-50:].mean():.2f} over the last 50"
    )
    assert losses[-50:].mean() < losses[:50].mean()

# %% [markdown]
# ## Loss after each example
#
# On 4096 fresh sequences. Least squares is exact once there are as many examples as features; before that, the one of
# least norm leaves the part of the weights that no example has seen.

# %%
xs, ys = sequences(jax.random.key(99), 4096)
errors = {name: jnp.square(eqx.filter_jit(model)(xs, ys) - ys) for name, model in models.items()}


def least_squares(count):
    """Squared errors at point `count`, from the points before it."""
    if count == 0:
        return jnp.square(ys[:, 0])
    prompts = il.Prompt(x=xs[:, :count], y=ys[:, :count], query=xs[:, count])
    return jnp.square(OLS(task).predict(prompts) - ys[:, count])


errors["least squares"] = jnp.stack([least_squares(count) for count in range(DIM)], axis=1)
rows = [
    {
        "method": name,
        "examples": count,
        "value": float(of_point.mean()),
        "standard_error": float(of_point.std() / len(of_point) ** 0.5),
    }
    for name, of_all in errors.items()
    for count, of_point in enumerate(of_all.T)
]
table = pl.DataFrame(rows)
print(table.pivot("method", index="examples", values="value"))
assert (
    table.filter(method="softmax", examples=0)["value"][0]
    > table.filter(method="softmax", examples=5)["value"][0]
)

# %%
figure = figures.losses_by_examples(
    table, loss="squared error", title=f"After {STEPS} steps of {BATCH} sequences"
)
figure.savefig("loss_by_examples.png")
figure
