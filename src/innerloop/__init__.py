"""innerloop: the laboratory for the learning algorithm that runs inside a forward pass."""

from typing import TYPE_CHECKING

from innerloop.lazy import lazily

if TYPE_CHECKING:
    from innerloop import papers, predictors, probe
    from innerloop.estimator import InContextRegressor
    from innerloop.evaluation import bayes_floor, evaluate, loss_by_sigma
    from innerloop.models import CausalDecoder, LinearTransformer
    from innerloop.portable import export
    from innerloop.probe import describe
    from innerloop.shipped import pretrained
    from innerloop.study import load_run, load_study
    from innerloop.tasks import Categorical, Fixed, LinearRegression, Uniform, parse_noise
    from innerloop.train import fit
    from innerloop.types import Moments, Prompt

__all__ = [
    "Categorical",
    "CausalDecoder",
    "Fixed",
    "InContextRegressor",
    "LinearRegression",
    "LinearTransformer",
    "Moments",
    "Prompt",
    "Uniform",
    "bayes_floor",
    "describe",
    "evaluate",
    "export",
    "fit",
    "load_run",
    "load_study",
    "loss_by_sigma",
    "papers",
    "parse_noise",
    "predictors",
    "pretrained",
    "probe",
]

_found = lazily(
    __name__,
    {
        "innerloop.estimator": ("InContextRegressor",),
        "innerloop.evaluation": ("bayes_floor", "evaluate", "loss_by_sigma"),
        "innerloop.models": ("CausalDecoder", "LinearTransformer"),
        "innerloop.papers": ("papers",),
        "innerloop.predictors": ("predictors",),
        "innerloop.portable": ("export",),
        "innerloop.probe": ("describe", "probe"),
        "innerloop.shipped": ("pretrained",),
        "innerloop.study": ("load_run", "load_study"),
        "innerloop.tasks": ("Categorical", "Fixed", "LinearRegression", "Uniform", "parse_noise"),
        "innerloop.train": ("fit",),
        "innerloop.types": ("Moments", "Prompt"),
    },
)


def __getattr__(name: str) -> object:
    return _version() if name == "__version__" else _found(name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("innerloop")
    except PackageNotFoundError:  # a source tree on the path that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return __all__
