"""Runs and studies: what they are, where they are kept, and who does them."""

from typing import TYPE_CHECKING

from innerloop.lazy import lazily

if TYPE_CHECKING:
    from innerloop.study.errors import SpecError
    from innerloop.study.plan import Plan, StudySpec, load_study_spec, make_plan
    from innerloop.study.run import Run, environment, load_run, train_run
    from innerloop.study.runner import run_study
    from innerloop.study.spec import RunSpec, load_spec, parse_spec
    from innerloop.study.study import Study, load_study

__all__ = [
    "Plan",
    "Run",
    "RunSpec",
    "SpecError",
    "Study",
    "StudySpec",
    "environment",
    "load_run",
    "load_spec",
    "load_study",
    "load_study_spec",
    "make_plan",
    "parse_spec",
    "run_study",
    "train_run",
]

__getattr__ = lazily(
    __name__,
    {
        "innerloop.study.errors": ("SpecError",),
        "innerloop.study.plan": ("Plan", "StudySpec", "load_study_spec", "make_plan"),
        "innerloop.study.run": ("Run", "environment", "load_run", "train_run"),
        "innerloop.study.runner": ("run_study",),
        "innerloop.study.spec": ("RunSpec", "load_spec", "parse_spec"),
        "innerloop.study.study": ("Study", "load_study"),
    },
)
