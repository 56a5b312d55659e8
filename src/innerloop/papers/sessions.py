"""What a reproduction has cost: a line in `sessions.jsonl` each time that its command ran, since it can be resumed."""

import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from innerloop.study import environment

FILE = "sessions.jsonl"


@contextmanager
def session(out: Path, *, outputs: Sequence[str], workers: int) -> Iterator[None]:
    """Record what the body takes, however it ends but by a kill, in the folder `out` if it has been made.

    A line holds began (UTC), outputs, workers, seconds of wall time, cpu_seconds of this process and those that it
    waited for, and the environment.
    """
    began, clock, cpu = datetime.now(UTC), time.perf_counter(), _cpu_seconds()
    try:
        yield
    finally:
        if out.is_dir():
            line = {
                "began": began.isoformat(timespec="seconds"),
                "outputs": list(outputs),
                "workers": workers,
                "seconds": round(time.perf_counter() - clock, 1),
                "cpu_seconds": round(_cpu_seconds() - cpu, 1),
                **environment(),
            }
            with (out / FILE).open("a") as file:
                file.write(json.dumps(line) + "\n")


def sessions(out: Path) -> pl.DataFrame:
    """A row for each line, in order; no rows if there is no file."""
    path = out / FILE
    return pl.read_ndjson(path) if path.exists() else pl.DataFrame()


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
