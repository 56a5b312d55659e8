"""Following runs in a tracker that a group uses already. None is needed: the tables hold everything.

A tracker is made for each run, hears every row of its history, and is closed with what came of it. The adapters import
their packages when they are made: `pip install "innerloop[tracking]"`, or the one that you use.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Something that is told how a run goes."""

    def log(self, row: dict) -> None:
        """A row of the history: step, phase, layers, loss, regret, seconds, .."""
        ...

    def close(self, summary: dict) -> None:
        """The run's end: status and seconds, or what is known of them."""
        ...


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir STUDY`."""

    def __init__(self, run: str, spec: dict, folder: Path):
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("spec", "\n\n".join(f"{name}: {value}" for name, value in flat(spec).items()))

    def log(self, row: dict) -> None:
        for name, value in numbers(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self, summary: dict) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync` sends an offline run later."""

    def __init__(self, run: str, spec: dict, folder: Path):
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project="innerloop",
            name=run,
            config=flat(spec),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, row: dict) -> None:
        self._run.log(numbers(row), step=row["step"])

    def close(self, summary: dict) -> None:
        self._run.summary.update(summary)
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI, or a database `mlflow.db` beside the run's folder."""

    def __init__(self, run: str, spec: dict, folder: Path):
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve().parent / 'mlflow.db'}")
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name("innerloop")
        experiment = found.experiment_id if found else self._client.create_experiment("innerloop")
        self._id = self._client.create_run(experiment, run_name=run).info.run_id
        for name, value in flat(spec).items():
            self._client.log_param(self._id, name, value)

    def log(self, row: dict) -> None:
        for name, value in numbers(row).items():
            self._client.log_metric(self._id, name, value, step=row["step"])

    def close(self, summary: dict) -> None:
        self._client.set_terminated(self._id, "FINISHED" if summary.get("status") == "done" else "FAILED")


TRACKERS: dict[str, Callable[[str, dict, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def make_tracker(name: str, run: str, spec: dict, folder: Path) -> Tracker:
    """The tracker called `name` for a run.

    Raises:
        ValueError: there is no such tracker, or its package is not installed.
    """
    check_tracker(name)
    try:
        return TRACKERS[name](run, spec, folder)
    except ImportError as error:
        raise ValueError(
            f'tracking by {name} needs {error.name}: pip install "innerloop[tracking]"'
        ) from None


def check_tracker(name: str) -> None:
    """Raises ValueError if there is no tracker called `name`."""
    if name not in TRACKERS:
        raise ValueError(f"--track must be one of {', '.join(TRACKERS)}, got {name!r}")


def check_trackers(track: Sequence[str], address: Path | str) -> None:
    """Raises ValueError if a tracker would keep what it is told where nobody finds it."""
    if "mlflow" in track and isinstance(address, str) and "MLFLOW_TRACKING_URI" not in os.environ:
        raise ValueError(f"--track mlflow with results at {address} needs a server: set MLFLOW_TRACKING_URI")


def numbers(row: dict) -> dict[str, float]:
    """What of a row can be drawn as a curve."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def flat(spec: dict) -> dict[str, Any]:
    """`section.field` -> value."""
    return {
        f"{section}.{field}": value
        for section, fields in spec.items()
        for field, value in fields.items()
        if value is not None
    }
