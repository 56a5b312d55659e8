"""Measures the page of `innerloop explore`, and writes docs/results/explore.parquet and docs/results/explore.md.

    pip install -e ".[explore]"
    python benchmarks/explore.py

The time from a request to its answer over HTTP, as the browser sees it after a slider was moved, for a DIAG of 7 layers,
d = 10, n = 20: the line and its distances, the loss, and both after each other. Every request has other numbers.
"""

import http.client
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from results import record, row

from innerloop.explore import Explorer, server
from innerloop.study import parse_spec, train_run

REQUESTS = 200
BAR = "<= 100"
SPEC = {
    "task": {"dim": 10, "context": 20, "noise": "uniform(0,5)"},
    "model": {"kind": "diag", "layers": 7, "heads": 2},
    "train": {"optimizer": "adam", "steps": 10, "batch": 64},
}


class Client:
    """One connection that is kept, as a browser's is."""

    def __init__(self, url: str):
        self._connection = http.client.HTTPConnection(url.split("/")[2])

    def ask(self, path: str, body: dict | None = None) -> dict:
        self._connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(answer["error"])
        return answer


def slider() -> list[dict]:
    """Median and 95 % of the milliseconds from a moved slider to the answers that it asks for."""
    with tempfile.TemporaryDirectory() as folder, server.listen("127.0.0.1", 0) as listening:
        run = train_run(parse_spec(SPEC), Path(folder) / "run")
        serving = server.server(Explorer([run]), "127.0.0.1")
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            return _measured(Client(server.address(listening)))
        finally:
            serving.should_exit = True
            thread.join()


def _measured(client: Client) -> list[dict]:
    began = time.perf_counter()
    client.ask("/api/sample")
    ready = time.perf_counter() - began
    drawn = client.ask("/api/draw", {"n": 20, "dim": 10, "sigma": 2.0, "seed": 0})
    flows = np.array(client.ask("/api/about")["runs"][0]["flows"])
    rng = np.random.default_rng(0)
    seconds = {"the line and its distances": [], "the loss and its profile": []}
    for _ in range(REQUESTS):
        moved = (flows * rng.uniform(0.5, 1.5, flows.shape)).tolist()
        context = {"x": drawn["x"], "y": drawn["y"], "sigma": 2.0, "flows": [moved]}
        asked = [("/api/context", context), ("/api/losses", {"run": 0, "flows": moved})]
        for name, (path, body) in zip(seconds, asked, strict=True):
            began = time.perf_counter()
            client.ask(path, body)
            seconds[name].append(time.perf_counter() - began)
    seconds["both"] = list(np.sum(list(seconds.values()), axis=0))
    rows = [
        row("slider", "from the start until the loss can be asked for, s", "-", ready, note="compilation")
    ]
    for name, times in seconds.items():
        median, most = 1000 * np.quantile(times, [0.5, 0.95])
        note = f"of {REQUESTS} requests"
        rows.append(row("slider", f"{name}, median ms", BAR, median, note=note))
        rows.append(row("slider", f"{name}, 95 % ms", BAR, most, note=note))
    return rows


if __name__ == "__main__":
    record("explore", "The page of a run", {"slider": slider}, __doc__)
