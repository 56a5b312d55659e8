# %% [markdown]
# # Train a model and read off its algorithm
#
# A linear transformer of two layers is trained on regression with noise of unknown level. Its eight numbers are then
# read as an algorithm: which terms there are, what each does, and what each is worth.

# %%
import jax
import polars as pl

import innerloop as il
from innerloop import figures
from innerloop.evaluation import evaluate_many
from innerloop.predictors import OLS

task = il.LinearRegression(dim=5, context=10, noise="uniform(0,3)")
start = il.LinearTransformer.diag(dim=5, layers=2, heads=2, context=10, key=jax.random.key(0))
run = il.fit(start, task, objective="bayes", seed=0, sample=256, steps=8, warm=False)
run.history.select("step", "loss", "regret").tail(3)

# %% [markdown]
# How good is it? Least squares is the classical answer.

# %%
judged = evaluate_many({"model": run.model, "least squares": OLS(task)}, task, sequences=16_384)
for name, found in judged.items():
    print(f"{name}: regret {found.regret.value:.4f} ± {found.regret.standard_error:.4f}")
assert judged["model"].regret.value < judged["least squares"].regret.value

# %% [markdown]
# Four numbers a layer, $w_{xx}, w_{xy}, w_{yx}, w_{yy}$, written target first: $w_{yx}$ carries $x$ into $y$. A
# negative $w_{yx}$ is a step of gradient descent. `describe` measures what leaving out each term would cost, and
# leaves out the cheapest ones.

# %%
algorithm = il.describe(run.model, task, sequences=16_384)
print(algorithm.text())

# %% [markdown]
# The first layer must take a gradient step or prepare one: without labels moved there is no answer. Here is every
# term's cost.

# %%
costs = pl.DataFrame(
    [
        {
            "layer": layer.number,
            "term": term.flow,
            "value": term.value,
            "cost": term.cost.value,
            "kept": term.kept,
        }
        for layer in algorithm.layers
        for term in layer.terms
    ]
)
print(costs)
steps = costs.filter(pl.col("term") == "w_yx")
assert (steps["value"] < 0).any(), "some layer descends the gradient"

# %% [markdown]
# What the prediction would lose if it were read after each layer, with the Bayes floor below which no predictor can
# be:

# %%
rows = [
    {"method": "diag free", "layer": layer, "value": loss.value, "standard_error": loss.standard_error}
    for layer, loss in enumerate(judged["model"].per_layer)
]
figure = figures.loss_after_layer(
    pl.DataFrame(rows), floor=judged["model"].floor.value, title="DIAG of two layers, read after each"
)
figure.savefig("loss_after_layer.png")
figure
