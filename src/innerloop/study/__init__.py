"""Runs: what they are, and where they are kept."""

from innerloop.study.run import Run, environment, load_run, train_run
from innerloop.study.spec import RunSpec, SpecError, load_spec, parse_spec

__all__ = ["Run", "RunSpec", "SpecError", "environment", "load_run", "load_spec", "parse_spec", "train_run"]
