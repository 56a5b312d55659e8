"""The pictures of docs/introduction.md: `python docs/make_figures.py` draws them anew, in about a minute.

The one-dimensional model is trained here, in seconds; the others are shipped with the package.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import innerloop as il
from innerloop import figures
from innerloop.evaluation import evaluate_many, losses_by_sigma
from innerloop.figures.axes import settle
from innerloop.figures.style import WIDTH, rc
from innerloop.predictors import OLS, BayesOptimal, ConstRR

FOLDER = Path(__file__).parent / "figures"
TASK = il.LinearRegression(dim=1, context=8, noise="uniform(0,3)")
LAYERS = 3
CALM, MIDDLE, NOISY = 0.3, 1.0, 3.0
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
ENDS = np.array([-2.6, 2.6])  # of the input's axis


@dataclass(frozen=True)
class Style:
    """How a straight line is drawn, and what the legend says of it."""

    label: str
    colour: str
    dash: str | tuple = "-"
    width: float = 1.5


TRUE = Style("true line (hidden)", "0.5", (0, (4, 2)))
LEAST_SQUARES = Style("least squares", "#D55E00", (0, (1, 1)), 2.0)
BAYES = Style("Bayes-optimal", "#000000", (0, (6, 1.5, 1, 1.5)))
EXAMPLE, QUERY = "#0072B2", "#CC79A7"


def prompt_at(sigma: float) -> tuple[il.Prompt, float]:
    """One prompt and its weight, with the same inputs, weight and directions of the noise at every level of it.

    Of a draw, that whose weight is nearest to 1.2: a slope that can be seen well.
    """
    drawn = TASK.sample_prompts(jax.random.key(7), 64, sigma=jnp.full(64, sigma))
    assert drawn.weights is not None  # the sampler says them
    chosen = int(jnp.abs(drawn.weights[:, 0] - 1.2).argmin())
    return jax.tree.map(lambda leaf: leaf[chosen], drawn), float(drawn.weights[chosen, 0])


def draw_examples(axes: Axes, prompt: il.Prompt) -> None:
    style = {"color": EXAMPLE, "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.plot(prompt.x[:, 0], prompt.y, "o", zorder=4, label="examples (x, y)", **style)
    axes.set(xlabel="input x", xlim=ENDS)


def draw_slope(axes: Axes, slope: float, style: Style, order: float = 2.0) -> None:
    look = {"color": style.colour, "linestyle": style.dash, "linewidth": style.width, "zorder": order}
    axes.plot(ENDS, slope * ENDS, label=style.label, **look)


@rc_context(rc)
def what_the_model_is_shown() -> Figure:
    prompt, weight = prompt_at(MIDDLE)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title("One prompt: eight examples, and a query whose label is asked for")
    draw_examples(axes, prompt)
    draw_slope(axes, weight, TRUE)
    query = float(prompt.query[0])
    axes.axvline(query, color=QUERY, linewidth=1.2, zorder=1.5, label="the query's x")
    hollow = {"color": "white", "markeredgecolor": QUERY, "markeredgewidth": 1.6, "markersize": 8}
    axes.plot(query, weight * query, "s", zorder=5, label="its label (hidden)", **hollow)
    axes.set_ylabel("label y")
    figure.legend(loc="outside right center")
    return settle(figure)


@rc_context(rc)
def line_after_each_layer(model: il.LinearTransformer) -> Figure:
    """Above the lines, below their slopes: a column a noise level."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 2, sharey="row", height_ratios=(1.3, 1))
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 0.8, LAYERS))
    layers = [Style(f"after layer {k}", shade, width=2.6) for k, shade in enumerate(shades, start=1)]
    for above, below, sigma in zip(upper, lower, (CALM, NOISY), strict=True):
        prompt, weight = prompt_at(sigma)
        moments = prompt.moments()
        after = np.asarray(model.implicit_weights(moments))[:, 0]
        ols, bayes = (float(kind(TASK).implicit_weights(moments)[0]) for kind in (OLS, BayesOptimal))
        levels = {TRUE: weight, LEAST_SQUARES: ols, BAYES: bayes}
        above.set_title(f"{'Little' if sigma == CALM else 'Much'} noise, {SIGMA} = {sigma:g}")
        draw_examples(above, prompt)
        for style, slope in zip(layers, after[1:], strict=True):
            draw_slope(above, slope, style, order=2.5)
        for style, slope in levels.items():
            draw_slope(above, slope, style, order=3.0)
            below.axhline(slope, color=style.colour, linestyle=style.dash, linewidth=style.width, zorder=2)
        below.plot(after, color="0.6", linewidth=1, zorder=2.5)
        below.scatter(range(LAYERS + 1), after, c=["white", *shades], edgecolors="0.2", s=36, zorder=3)
        below.set(xlabel="layers applied", xticks=range(LAYERS + 1))
    upper[0].set_ylabel("label y")
    lower[0].set_ylabel("slope of the line")
    figure.legend(*upper[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return settle(figure)


def loss_after_each_layer() -> Figure:
    """Two shipped models of four layers, on the sequences of one draw."""
    ready = {"gd++": il.pretrained("gd++-4-uniform5"), "diag free": il.pretrained("diag-4-uniform5")}
    task = ready["gd++"].task
    judged = evaluate_many({name: each.model for name, each in ready.items()}, task, sequences=32_768)
    rows = [
        {"method": name, "layer": layer, "value": loss.value, "standard_error": loss.standard_error}
        for name, found in judged.items()
        for layer, loss in enumerate(found.per_layer)
    ]
    floor = judged["gd++"].floor.value
    title = "What a prediction loses that is read after each layer, above the Bayes floor"
    return figures.loss_after_layer(pl.DataFrame(rows), floor=floor, title=title)


def loss_at_each_noise_level() -> Figure:
    """A shipped model of seven layers beside classical predictors."""
    ready = il.pretrained("diag-7-uniform5")
    task = ready.task
    methods = {"least squares": OLS(task), "constrr": ConstRR(task), "bayes": BayesOptimal(task)}
    methods["diag free"] = ready.model
    profiles = losses_by_sigma(methods, task, sigmas=np.linspace(0.25, 6, 24))
    last = profiles.filter(pl.col("layer") == pl.col("layer").max().over("method"))
    title = "Loss at each noise level, of which no predictor here is told"
    columns = last.select("method", "sigma", "value", "standard_error")
    return figures.loss_against_sigma(columns, in_distribution=task.noise, title=title)


def main() -> None:
    start = il.LinearTransformer.diag(1, LAYERS, 2, key=jax.random.key(0), context=8, label_scale=0.5)
    model = il.fit(start, TASK, seed=0, sample=1024).model
    drawn = {
        "prompt": what_the_model_is_shown(),
        "layers": line_after_each_layer(model),
        "loss": loss_after_each_layer(),
        "sigma": loss_at_each_noise_level(),
    }
    for name, figure in drawn.items():
        path = FOLDER / f"introduction_{name}.png"
        figure.savefig(path, dpi=160, metadata={"Software": "innerloop"})
        print(path)


if __name__ == "__main__":
    main()
