"""Trackers hear every row of a run, in the files of the packages they write for."""

from pathlib import Path

import pytest

from innerloop.study import parse_spec, train_run
from innerloop.study.tracking import TRACKERS, check_tracker, flat, numbers

_SPEC = {
    "task": {"dim": 2, "context": 4, "noise": "uniform(0,1)"},
    "model": {"kind": "diag", "layers": 1},
    "train": {"optimizer": "adam", "steps": 200, "batch": 8},
}


@pytest.fixture(scope="module")
def losses(tmp_path_factory) -> tuple[Path, dict[int, float]]:
    """The folder of a run that all trackers followed, and its losses by step."""
    pytest.importorskip("tensorboardX")
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("tracked") / "run"
    run = train_run(parse_spec(_SPEC), folder, track=list(TRACKERS))
    return folder, dict(zip(run.history["step"], run.history["loss"], strict=True))


# What the packages warn of among themselves is not ours.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_tensorboard_has_every_row(losses):
    folder, expected = losses
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in (folder / "tensorboard").glob("events*"):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                if value.tag == "loss":
                    found[event.step] = value.simple_value
    assert found == pytest.approx(expected, rel=1e-6)


def test_wandb_keeps_an_offline_run(losses):
    folder, expected = losses
    [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
    text = path.read_bytes()
    assert b"model.kind" in text and b"regret" in text
    assert len(expected) == 2


def test_mlflow_has_every_row(losses):
    from mlflow import MlflowClient

    folder, expected = losses
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("innerloop")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["model.kind"] == "diag"
    found = {each.step: each.value for each in client.get_metric_history(run.info.run_id, "loss")}
    assert found == pytest.approx(expected)


def test_an_unknown_tracker_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="tensorboard, wandb, mlflow, got 'tensorbord'"):
        check_tracker("tensorbord")


def test_only_numbers_become_curves():
    assert numbers({"step": 3, "phase": "adam", "loss": 0.5, "skipped": 2}) == {"loss": 0.5, "skipped": 2.0}


def test_a_spec_is_flattened_without_what_is_unset():
    spec = flat(parse_spec(_SPEC).model_dump(mode="json"))
    assert spec["train.steps"] == 200 and "train.learning_rate" not in spec
