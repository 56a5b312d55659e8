# %% [markdown]
# # How far from Bayes?
#
# No predictor has a smaller mean loss than the Bayes-optimal one, which knows the law of the noise level and not the
# level. The distance to it says what a model has yet to learn. The models here are shipped with the package: nothing
# is trained.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

import innerloop as il
from innerloop import figures
from innerloop.evaluation import evaluate_many, losses_by_sigma
from innerloop.predictors import OLS, BayesOptimal, ConstRR

print(il.pretrained().select("name", "noise", "layers", "regret"))
gradient, adaptive = il.pretrained("gd++-7-uniform5"), il.pretrained("diag-7-uniform5")
task = adaptive.task
print(task.summary)

# %% [markdown]
# ## One context
#
# The examples say something about the noise. This is what they say in two contexts with the same inputs and weights:
# the mean and the standard deviation of sigma, given the examples.

# %%
for sigma in (1.0, 4.0):
    prompts = task.sample_prompts(jax.random.key(3), 1, sigma=jnp.full(1, sigma))
    moments = jax.tree.map(lambda leaf: leaf[0], prompts).moments()
    levels, probability = task.posterior(moments).noise_levels()
    mean = float(probability @ levels)
    print(
        f"sigma = {sigma:g}: given the examples {mean:.2f} ± {float(probability @ (levels - mean) ** 2) ** 0.5:.2f}"
    )

# %% [markdown]
# Twenty examples of ten features leave ten residuals, and ten residuals tell sigma only roughly. So the Bayes-optimal
# predictor is above the oracle, which is told sigma. That gap is the Bayes floor.
#
# ## All contexts

# %%
methods = {
    "least squares": OLS(task),
    "constrr": ConstRR(task),
    "gd++": gradient.model,
    "diag free": adaptive.model,
    "bayes": BayesOptimal(task),
}
judged = evaluate_many(methods, task, sequences=16_384, per_layer=False)
for name, found in judged.items():
    print(f"{name:>14}: regret {found.regret.value:.5f} ± {found.regret.standard_error:.5f}")
assert judged["least squares"].regret.value > judged["gd++"].regret.value > judged["diag free"].regret.value
assert abs(judged["bayes"].regret.value) < 1e-12

# %% [markdown]
# GD++ cannot see the labels' size: it is at best ridge with one level, `constrr`. `DIAG` can.
#
# ## At each noise level

# %%
profiles = losses_by_sigma(methods, task, sigmas=np.linspace(0.25, 6, 24), sequences=1024)
last = profiles.filter(pl.col("layer") == pl.col("layer").max().over("method"))
figure = figures.loss_against_sigma(
    last.select("method", "sigma", "value", "standard_error"),
    in_distribution=task.noise,
    title="Seven layers, sigma ~ U(0, 5)",
)
figure.savefig("loss_against_sigma.png")
figure

# %% [markdown]
# Right of the shaded part no model was trained. There the Bayes-optimal predictor of the *task* is wrong too: it is
# sure that sigma is at most 5.
