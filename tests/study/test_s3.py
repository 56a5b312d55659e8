"""Studies in a bucket: an S3 server on this machine's loopback, real processes that are killed, and Ray."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from test_faults import AXIS, STUDY, Here, children, rows

from innerloop.study import SpecError, load_run, load_study_spec, make_plan, run_study
from innerloop.study.engines import Local

moto = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")

ADDRESS = "s3://results/study"


def planned(folder: Path):
    """The study's file, written to `folder`, and its plan; shorter than where it is broken at many places."""
    file = folder / "study.yaml"
    file.write_text(STUDY.replace("AXIS", AXIS).replace("steps: 4000", "steps: 2000"))
    return file, make_plan(*load_study_spec(file))


@pytest.fixture(scope="module", autouse=True)
def bucket(tmp_path_factory):
    """The file system of an S3 server with the empty bucket `results`, which processes find by their environment."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # Processes share what the first of them compiles.
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        system = s3fs.S3FileSystem(use_listings_cache=False)
        system.mkdir("results")
        yield system
    server.stop()


@pytest.fixture(autouse=True)
def empty(bucket):
    yield
    if found := bucket.find("results"):
        bucket.rm(found)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The same study in a folder, when nothing befalls it."""
    folder = tmp_path_factory.mktemp("study")
    assert run_study(planned(folder)[1], folder / "unbroken", Here()) == []
    return folder / "unbroken"


def checkpoints(bucket) -> list[str]:
    return [name for name in bucket.find("results/study/runs") if "/checkpoints/" in name]


def same(bucket, unbroken: Path) -> bool:
    """Whether the bucket holds what the folder does: parameters bit for bit, rows but for times, each once."""
    for folder in (unbroken / "runs").iterdir():
        there, here = load_run(f"{ADDRESS}/runs/{folder.name}"), load_run(folder)
        if there.model.matrices()[0].tobytes() != here.model.matrices()[0].tobytes():
            return False
        if not there.history.drop("seconds").equals(here.history.drop("seconds")):
            return False
    return rows(ADDRESS) == rows(unbroken) and bucket.exists("results/study/done")


def driver(file: Path, *more: str, address: str = ADDRESS) -> subprocess.Popen:
    command = [sys.executable, "-m", "innerloop.cli", "sweep", str(file), "--out", address]
    command += ["--resume", "--workers", "1", *more]  # the plan of one process has one group
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_checkpoints(bucket, process: subprocess.Popen) -> None:
    while process.poll() is None and len(checkpoints(bucket)) < 2:
        time.sleep(0.2)
    assert process.poll() is None, f"it ended before it could be broken: {process.communicate()[0]}"


def test_a_driver_that_is_killed_is_gone_on_with_from_the_bucket(bucket, tmp_path, unbroken):
    file, plan = planned(tmp_path)
    process = driver(file)
    wait_for_checkpoints(bucket, process)
    process.kill()
    process.communicate()
    begun = {name: bucket.checksum(name) for name in checkpoints(bucket)}
    assert not bucket.exists("results/study/done")
    first = []

    def heard(message):
        first.append(message[2]["step"])

    assert run_study(plan, ADDRESS, Here(heard), resume=True) == []
    assert first[0] == 1 + max(int(Path(name).stem) for name in begun)  # not from the start
    assert same(bucket, unbroken)


def test_a_worker_that_is_killed_is_replaced_and_goes_on_from_the_bucket(bucket, tmp_path, unbroken):
    _, plan = planned(tmp_path)
    ended = []

    def kill(progress):
        if progress.row and not ended and len(checkpoints(bucket)) >= 2:
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            ended.append(progress.share)

    assert run_study(plan, ADDRESS, Local(1), report=kill) == []
    assert ended and ended[0] < 1
    assert same(bucket, unbroken)


def test_a_driver_of_ray_that_is_asked_to_stop_saves_to_the_bucket_and_asks_to_be_run_again(
    bucket, tmp_path, unbroken
):
    pytest.importorskip("ray")
    file, plan = planned(tmp_path)
    process = driver(file, "--engine", "ray")
    wait_for_checkpoints(bucket, process)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert f"stopped; what was done is kept in {ADDRESS}, go on by --resume" in " ".join(said.split())
    for run in plan.runs:
        folder = f"results/study/runs/{run.name}"
        assert b'"stopped"' in bucket.cat_file(f"{folder}/status.json")
        reported = pl.read_parquet(io.BytesIO(bucket.cat_file(f"{folder}/metrics.parquet")))["step"].max()
        assert max(int(Path(name).stem) for name in checkpoints(bucket) if run.name in name) == reported
    assert not [name for name in bucket.find("results") if "/tables/" in name]
    assert run_study(plan, ADDRESS, Here(), resume=True) == []
    assert same(bucket, unbroken)


def test_a_bucket_that_is_not_there_is_one_message_and_exit_code_2(tmp_path):
    file, plan = planned(tmp_path)
    process = driver(file, address="s3://gone/study")
    said = " ".join(process.communicate(timeout=60)[0].split())
    assert process.returncode == 2
    assert (
        "error: cannot read s3://gone/study: no such bucket or object (The specified bucket does not exist)"
        in said
    )
    assert "Traceback" not in said
    with pytest.raises(
        SpecError, match="cannot read s3://gone/run: no such bucket or object .The specified bucket"
    ):
        load_run("s3://gone/run")
