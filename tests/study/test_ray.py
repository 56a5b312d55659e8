"""The Ray engine against the local one: three nodes on this machine, one of which dies in the middle."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from innerloop.study import make_plan, run_study
from innerloop.study.engines import Local, Ray
from innerloop.study.plan import StudySpec
from innerloop.study.store import Store
from innerloop.train.checkpoint import read_arrays

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of many kinds

_STUDY = StudySpec(
    base={
        "task": {"dim": 3, "context": 6, "noise": "uniform(0,1)"},
        "model": {"kind": "diag", "layers": 1},
        "train": {"optimizer": "adam", "steps": 3000, "batch": 64},
        "evaluate": {"sequences": 4096},
    },
    axes={"train.objective": ["bayes", "oracle", "sampled"], "train.seed": [0, 1]},
)


def parameters(folder: Path) -> dict[str, np.ndarray]:
    return {path.parent.name: read_arrays(path)["1/0"] for path in (folder / "runs").glob("*/model.npz")}


def test_a_study_that_loses_a_node_equals_the_local_one(tmp_path):
    """Three groups on three nodes of one core each, one killed as soon as a checkpoint is there; bit for bit."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    plan = make_plan(_STUDY)
    assert len(plan.groups) == 3
    assert run_study(plan, tmp_path / "local", Local(2)) == []

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost: list[bool] = []
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        folder = tmp_path / "ray"

        def kill() -> None:
            while not list(folder.glob("runs/*/checkpoints/*.npz")):
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)
            lost.append(not list(folder.glob("tables/runs/*")))

        killer = threading.Thread(target=kill)
        killer.start()
        assert run_study(plan, folder, Ray(cluster.address)) == []
        killer.join(timeout=60)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost == [True]  # before any group was done
    local, remote = parameters(tmp_path / "local"), parameters(tmp_path / "ray")
    assert local.keys() == remote.keys() and len(local) == 6
    for name in local:
        np.testing.assert_array_equal(local[name], remote[name])
    columns = ["run", "adjusted_loss", "regret", "status"]
    tables = [
        Store(tmp_path / name).read("runs").select(columns).sort("run").to_dicts()
        for name in ("local", "ray")
    ]
    assert tables[0] == tables[1]
