"""A run is a folder with all that is needed to repeat it and to go on with it.

spec.yaml            what was asked for
environment.json     versions, device, git revision
status.json          running, done, stopped or failed, and the seconds of training
metrics.parquet      one row a reporting interval
checkpoints/         the last states of training
model.npz            the trained parameters of every depth
"""

import contextlib
import glob
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import yaml

import innerloop
from innerloop.files import remove_leftovers, write_atomically
from innerloop.models import LinearTransformer
from innerloop.study.errors import SpecError
from innerloop.study.folders import why_no_run
from innerloop.study.remote import mirrored
from innerloop.study.spec import RunSpec, parse_spec
from innerloop.study.tracking import Tracker, check_trackers, make_tracker
from innerloop.train import Checkpoints, Fitting, Preempted, Report, fit_together
from innerloop.train.checkpoint import DamagedFile, read_arrays, write_arrays

_FLUSH_EVERY = 2.0  # seconds between writes of the metrics
# What a finished run is read from.
_READ = ("spec.yaml", "environment.json", "status.json", "metrics.parquet", "model.npz")


@dataclass(frozen=True)
class Run:
    """A run read from its folder.

    Attributes:
        folder: where it is, or its URL.
        spec: what was asked for.
        model: the trained model, in the precision of the caller's context.
        by_depth: the models of every depth that training passed through.
        exact_by_depth: the same as NumPy arrays in the precision of training; evaluation casts as it needs.
        history: one row a reporting interval.
        seconds: wall time of training.
        revision: the git revision that trained it, "unknown" if it is not known.
    """

    folder: Path | str
    spec: RunSpec
    model: LinearTransformer
    by_depth: dict[int, LinearTransformer]
    exact_by_depth: dict[int, LinearTransformer]
    history: pl.DataFrame
    seconds: float
    revision: str = "unknown"

    @property
    def exact_model(self) -> LinearTransformer:
        return self.exact_by_depth[self.spec.model.layers]


@dataclass(frozen=True)
class Job:
    """A run to train, where, and the trackers that follow it."""

    spec: RunSpec
    folder: Path
    track: tuple[str, ...] = ()


def train_run(
    spec: RunSpec,
    folder: str | Path,
    *,
    resume: bool = False,
    report: Callable[[Report], None] | None = None,
    stop: Callable[[], bool] | None = None,
    track: Sequence[str] = (),
) -> Run:
    """Train what `spec` describes in `folder`, and return the finished run.

    Args:
        folder: a folder, or the URL of one on object storage.
        resume: go on with what the folder holds; a finished run is returned as it is.
        stop: asked from time to time whether to save and stop.
        track: names of trackers to tell, see `innerloop.study.tracking`.

    Raises:
        SpecError: the folder holds a run and `resume` is not set, holds a run of another spec, or cannot be written.
        Preempted: `stop` said so.
    """
    with mirrored(folder) as mirror:
        check_trackers(track, mirror.address)
        mirror.pull(*_READ, "checkpoints")
        if mirror.apart:
            drop_unreported(mirror.folder)
        job = Job(spec, mirror.folder, tuple(track))
        with mirror.pushing():
            _train([job], resume=resume, reports=[report], stop=stop, saved=mirror.saved)
    return load_run(folder)


def train_runs(
    jobs: Sequence[Job],
    *,
    resume: bool = False,
    report: Callable[[float, dict], None] | None = None,
    stop: Callable[[], bool] | None = None,
    saved: Callable[[], None] | None = None,
) -> None:
    """Train several runs of one shape as one program, each in a folder of its own; those that are done are left alone.

    Args:
        report: called with the share of the work done and a run's latest row.
        saved: called after checkpoints were saved.

    Raises:
        SpecError: as for `train_run`.
        Preempted: `stop` said so.
    """
    shares = [0.0] * len(jobs)

    def tell(index: int, update: Report) -> None:
        shares[index] = update.progress
        if report is not None and (index == len(jobs) - 1 or len(jobs) == 1):
            report(sum(shares) / len(shares), update.row)

    reports = [partial(tell, index) for index in range(len(jobs))]
    _train(jobs, resume=resume, reports=reports, stop=stop, saved=saved)


def _train(
    jobs: Sequence[Job],
    *,
    resume: bool,
    reports: Sequence,
    stop: Callable[[], bool] | None,
    saved: Callable[[], None] | None = None,
) -> None:
    left = [
        (job, report)
        for job, report in zip(jobs, reports, strict=True)
        if not finished(job.folder, job.spec, resume)
    ]
    if not left:
        return
    about = environment()
    for job, _ in left:
        _prepare(job.folder, job.spec, about)
    already = [float(_read_status(job.folder).get("seconds", 0.0)) for job, _ in left]
    metrics = [_Metrics(job.folder / "metrics.parquet") for job, _ in left]

    trackers = [
        [
            make_tracker(name, job.folder.name, job.spec.model_dump(mode="json"), job.folder)
            for name in job.track
        ]
        for job, _ in left
    ]

    def keep(
        own: _Metrics, told: list[Tracker], report: Callable[[Report], None] | None, update: Report
    ) -> None:
        own.add(update.row)
        for tracker in told:
            tracker.log(update.row)
        if report is not None:
            report(update)

    fittings = []
    for (job, report), own, told in zip(left, metrics, trackers, strict=True):
        task = job.spec.task.build()
        fittings.append(
            Fitting(
                job.spec.model.build(task, job.spec.train.seed),
                task,
                job.spec.train,
                report=partial(keep, own, told, report),
                before_saving=own.flush,
                checkpoints=Checkpoints(job.folder / "checkpoints"),
            )
        )
    try:
        results = fit_together(fittings, resume=resume, stop=stop, saved=saved)
    except BaseException as error:
        status = "stopped" if isinstance(error, KeyboardInterrupt | Preempted) else "failed"
        for (job, _), own, told, seconds in zip(left, metrics, trackers, already, strict=True):
            own.flush()
            _end(job.folder, {"status": status, "seconds": seconds}, told)
        raise
    for (job, _), own, told, seconds, result in zip(left, metrics, trackers, already, results, strict=True):
        own.flush()
        arrays = {
            f"{depth}/{index}": np.asarray(leaf)
            for depth, model in result.exact.items()
            for index, leaf in enumerate(jax.tree.leaves(model))
        }
        write_arrays(job.folder / "model.npz", arrays)
        _end(job.folder, {"status": "done", "seconds": seconds + result.seconds}, told)


def _end(folder: Path, status: dict, trackers: list[Tracker]) -> None:
    _write_json(folder / "status.json", status)
    for tracker in trackers:
        tracker.close(status)


def finished(folder: Path, spec: RunSpec, resume: bool) -> bool:
    """Whether the folder holds this run, done.

    Raises:
        SpecError: it holds a run and `resume` is not set, or one of another spec.
    """
    if not (folder / "spec.yaml").exists():
        return False
    if not resume:
        raise SpecError(f"{folder} already holds a run; go on with it by --resume, or choose another --out")
    if (before := _read_spec(folder)) != spec:
        raise SpecError(f"{folder} holds a run of another spec ({before.name()}); choose another --out")
    return _read_status(folder).get("status") == "done" and (folder / "model.npz").exists()


def status_of(folder: Path) -> dict:
    """What a run's folder says of it: status, seconds, revision, and its history as rows."""
    status = _read_status(folder)
    metrics = _Metrics(folder / "metrics.parquet")
    return {
        "status": status.get("status", "unknown"),
        "seconds": status.get("seconds"),
        "revision": _read_json(folder / "environment.json").get("git_revision"),
        "history": metrics.rows,
    }


def load_run(folder: str | Path) -> Run:
    """The finished run in `folder`, which may be a URL.

    Raises:
        SpecError: there is no finished run there.
    """
    with mirrored(folder) as mirror:
        mirror.pull(*_READ)
        if not os.path.exists(mirror.folder / "spec.yaml"):
            missing = f"{mirror.address} is not a run: it has no spec.yaml"
            raise SpecError(missing if mirror.apart else why_no_run(mirror.folder))
        return replace(_load(mirror.folder), folder=mirror.address)


def _load(folder: Path) -> Run:
    spec, status = _read_spec(folder), _read_status(folder)
    if not (folder / "model.npz").exists():
        state = status.get("status", "unknown")
        raise SpecError(
            f"{folder} has no trained model yet (status {state}); "
            f"go on with it by innerloop train SPEC --out {folder} --resume"
        )
    try:
        arrays = read_arrays(folder / "model.npz")
    except DamagedFile as error:
        raise SpecError(
            f"{folder / 'model.npz'} is damaged ({error}); delete it and train again by --resume"
        ) from None
    task = spec.task.build()
    exact = {}
    for depth in sorted({int(name.split("/")[0]) for name in arrays}):
        # Only its structure is needed: nothing is drawn.
        template = eqx.filter_eval_shape(spec.model.model_copy(update={"layers": depth}).build, task)
        expected, structure = jax.tree.flatten(template)
        leaves = [arrays.get(f"{depth}/{index}") for index in range(len(expected))]
        if any(leaf is None or leaf.shape != like.shape for leaf, like in zip(leaves, expected, strict=True)):
            raise SpecError(
                f"{folder / 'model.npz'} is damaged (its arrays do not fit spec.yaml); "
                "delete it and train again by --resume"
            )
        exact[depth] = jax.tree.unflatten(structure, leaves)
    if spec.model.layers not in exact:
        raise SpecError(
            f"{folder / 'model.npz'} is damaged (no model of {spec.model.layers} layers); "
            "delete it and train again by --resume"
        )
    by_depth = {
        depth: jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model) for depth, model in exact.items()
    }
    metrics = folder / "metrics.parquet"
    return Run(
        folder=folder,
        spec=spec,
        model=by_depth[spec.model.layers],
        by_depth=by_depth,
        exact_by_depth=exact,
        history=pl.read_parquet(metrics) if metrics.exists() else pl.DataFrame(),
        seconds=float(status.get("seconds", float("nan"))),
        revision=_read_json(folder / "environment.json").get("git_revision", "unknown"),
    )


def folders_of(spec: RunSpec, under: Path) -> dict[Path, str]:
    """The folders in `under` that are named after `spec` and hold a run of it, the oldest first, and their status."""
    found = {}
    for path in sorted(under.glob(f"{glob.escape(spec.name())}*/spec.yaml")):
        with contextlib.suppress(SpecError):  # of another version, or damaged: not this one
            if _read_spec(path.parent) == spec:
                found[path.parent] = _read_status(path.parent).get("status", "unknown")
    return found


def drop_unreported(folder: Path) -> None:
    """Delete the checkpoints of a run after its last reported step: going on from one would leave a gap in the history.

    They are there if two processes trained the run at a time and pushed what they had to one address.
    """
    metrics = _Metrics(folder / "metrics.parquet")
    last = metrics.rows[-1]["step"] if metrics.rows else 0
    for path in (folder / "checkpoints").glob("[0-9]*.npz"):
        if int(path.stem) > last:
            path.unlink()


class _Metrics:
    """History on disk: rows are added as they come, and rewritten whole from time to time."""

    def __init__(self, path: Path):
        self._path = path
        self._rows = self._read()
        self._flushed = -np.inf

    @property
    def rows(self) -> list[dict]:
        return self._rows

    def _read(self) -> list[dict]:
        if not self._path.exists():
            return []
        try:
            return pl.read_parquet(self._path).to_dicts()
        except (OSError, pl.exceptions.PolarsError) as error:
            warnings.warn(f"{self._path} is damaged ({error}); its rows are lost", stacklevel=4)
            return []

    def add(self, row: dict) -> None:
        # A resumed run repeats the intervals after its last checkpoint.
        self._rows = [old for old in self._rows if old["step"] < row["step"]]
        self._rows.append(row)
        if row["seconds"] - self._flushed > _FLUSH_EVERY:
            self.flush()
            self._flushed = row["seconds"]

    def flush(self) -> None:
        if self._rows:
            frame = pl.DataFrame(self._rows, infer_schema_length=None)
            write_atomically(self._path, frame.write_parquet)


def environment() -> dict[str, str]:
    """What a run depended on besides its spec."""
    names = ("jax", "jaxlib", "equinox", "optax", "numpy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "git_revision": git_revision(),
        "innerloop": str(innerloop.__version__),  # known without an installation, too
        **{name: version(name) for name in names},
    }


@cache
def git_revision() -> str:
    """The revision of the checkout that the package runs from, "-dirty" if it has changes; "unknown" outside one.

    The environment variable INNERLOOP_REVISION names it where no checkout can, in a container's image say.
    """
    if named := os.environ.get("INNERLOOP_REVISION"):
        return named
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _prepare(folder: Path, spec: RunSpec, about: dict[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in (folder, folder / "checkpoints"):
            remove_leftovers(each)
        write_atomically(folder / "spec.yaml", lambda file: file.write(spec.to_yaml().encode()))
        _write_json(folder / "environment.json", about)
        seconds = _read_status(folder).get("seconds", 0.0)
        _write_json(folder / "status.json", {"status": "running", "seconds": seconds})
    except OSError as error:
        raise SpecError(f"cannot write to the run folder {folder}: {error.strerror or error}") from None


def _read_spec(folder: Path) -> RunSpec:
    try:
        return parse_spec(yaml.safe_load((folder / "spec.yaml").read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise SpecError(f"{folder / 'spec.yaml'} cannot be read: {error}") from None


def _read_status(folder: Path) -> dict:
    return _read_json(folder / "status.json")


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=2).encode()))
