"""`innerloop doctor`: what it finds, says and ends with."""

import json
import re
import sys
import tomllib
from pathlib import Path

from innerloop import study
from innerloop.commands import doctor
from shell import innerloop, one_object


def test_doctor_as_json(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    answer = one_object(innerloop("doctor", "--json"))
    assert {"python", "jax", "backend", "git_revision", "devices", "precision"} <= set(answer)
    assert answer["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]
    assert answer["results"] == str(tmp_path / "runs")
    assert answer["devices"]


def test_doctor_for_people(monkeypatch):
    monkeypatch.setattr(doctor, "_wrong", lambda facts: [])
    result = innerloop("doctor")
    assert (result.code, result.err) == (0, "")
    for said in (
        "jaxlib",
        "float32",
        "cores",
        "threads",
        "GiB free",
        "compilation cache",
        "innerloop explore",
    ):
        assert said in result.out


def test_doctor_says_how_to_get_what_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda package: None if package == "uvicorn" else package)
    assert one_object(innerloop("doctor", "--json"))["extras"] == {
        "estimator": [], "explore": ["uvicorn"], "onnx": [], "ray": [], "remote": [], "tracking": []
    }  # fmt: skip
    assert re.search(r'innerloop explore +pip install "innerloop\[explore\]"', innerloop("doctor").out)


def test_doctor_ends_with_1_where_no_run_can_be_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    monkeypatch.setattr(doctor, "_memory", lambda: {"free_gib": 0.25, "total_gib": 4.0})
    result = innerloop("doctor", "--json")
    assert result.code == 1
    file, memory = json.loads(result.out)["problems"]
    assert file == f"results go to {tmp_path / 'runs'}, which is a file: rename it, or say --out"
    assert memory == "0.25 GiB of memory are free, a run may need 0.5"
    assert f"problem: {memory}" in innerloop("doctor").err


def test_doctor_survives_a_device_that_does_not_work(monkeypatch):
    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(study, "environment", broken)
    result = innerloop("doctor", "--json")
    assert result.code == 1
    assert (
        json.loads(result.out)["problems"][0] == "JAX does not compute: Unable to initialize backend 'cuda'"
    )


def test_doctor_knows_every_extra_of_a_user():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for_developers = {name for name in extras if "test" in name} | {"dev", "docs", "parity"}
    assert set(doctor.EXTRAS) == set(extras) - for_developers
