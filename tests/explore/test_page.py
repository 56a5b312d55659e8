"""The page over HTTP, and in a real Chromium: by mouse, by keyboard, on a telephone, in the dark, and by axe-core."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from explored import run
from innerloop.explore import Explorer
from innerloop.explore.asked import LossesAsked
from shell import innerloop

pytest.importorskip("starlette", reason="could not import 'starlette': it is of the extra explore")
pytest.importorskip("uvicorn", reason="could not import 'uvicorn': it is of the extra explore")
from innerloop.explore import server  # noqa: E402


class Served:
    """The page of some runs, served by a thread of this process."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self._listening = server.listen("127.0.0.1", 0)
        self.url = server.address(self._listening)
        self._server = server.server(explorer, "127.0.0.1")
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listening]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listening.close()

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and text of a GET, or of a POST of `body`."""
        try:
            with urllib.request.urlopen(self.url + path, body, timeout=120) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def test_a_folder_that_is_no_run_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = innerloop("explore", "nowhere")
    assert (said.code, said.out) == (2, "")
    assert "nowhere is not a run: there is no such folder" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def alone() -> Iterator[Served]:
    """A DIAG of three layers."""
    served = Served(Explorer([run("diag", 3, np.random.default_rng(5))]))
    yield served
    served.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Served]:
    """A DIAG of three layers and a FULL of two."""
    rng = np.random.default_rng(5)
    served = Served(Explorer([run("diag", 3, rng), run("full", 2, rng)]))
    yield served
    served.close()


# --- Over HTTP


def test_answers_are_the_explorers(alone):
    status, text = alone.ask("api/about")
    assert (status, json.loads(text)) == (200, alone.explorer.about())
    status, text = alone.ask("api/draw", b'{"n": 4, "dim": 2, "sigma": 1, "seed": 3}')
    drawn = json.loads(text)
    assert status == 200 and np.shape(drawn["x"]) == (4, 2)
    body = {"x": drawn["x"], "y": drawn["y"], "sigma": 1, "flows": [None]}
    status, text = alone.ask("api/context", json.dumps(body).encode())
    assert status == 200 and np.shape(json.loads(text)["runs"][0]["path"]) == (4, 2)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("api/draw", b"", "invalid JSON"),
        ("api/draw", b"[1]", "must be a mapping|valid dictionary|object"),
        ("api/draw", b'{"n": 0, "dim": 1, "sigma": 1, "seed": 0}', "n: input should be greater than or equal to 1, got 0"),
        ("api/draw", b'{"n": 1, "dim": 21, "sigma": 1, "seed": 0}', "dim must be from 1 to 20, got 21"),
        ("api/draw", b'{"n": 1, "dim": 1, "sigma": 1, "sead": 0}', "sead: unknown key; did you mean seed"),
        ("api/context", b'{"x": [[1]], "y": [1, 2], "sigma": 1, "flows": [null]}', "a label for each of the 1 rows"),
        ("api/context", b'{"x": [[NaN]], "y": [1], "sigma": 1, "flows": [null]}', "x.0.0|JSON"),
        ("api/losses", b'{"run": 1}', "run must be below 1, the number of runs, got 1"),
    ],
)  # fmt: skip
def test_a_bad_request_is_one_clear_error(alone, path, body, said):
    status, text = alone.ask(path, body)
    assert status == 400
    answer = json.loads(text)
    assert set(answer) == {"error"}
    assert re.search(said, answer["error"])
    assert "Traceback" not in text and len(text) < 500


def test_what_is_not_finite_is_null(alone):
    flows = [[[1e6, 1e6], [1e6, 1e6]]] * 3
    body = {"x": [[1e6, 1.0]], "y": [1e6], "sigma": 0, "flows": [flows]}
    status, text = alone.ask("api/context", json.dumps(body).encode())
    assert status == 200
    assert None in json.loads(text, parse_constant=pytest.fail)["runs"][0]["distances"]["ols"]


@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 200), ("127.0.0.1:80", 200), ("evil.example", 400)]
)
def test_only_requests_to_this_machine_are_answered(alone, host, status):
    """A site whose name was made to point to 127.0.0.1 sends its own name."""
    connection = http.client.HTTPConnection(alone.url.split("/")[2], timeout=60)
    connection.request("GET", "/api/about", headers={"Host": host})
    response = connection.getresponse()
    assert response.status == status
    response.read()
    connection.close()


def test_the_browser_is_told_to_fetch_nothing_from_elsewhere(alone):
    for path in ("", "page.js", "page.css", "api/about"):
        with urllib.request.urlopen(alone.url + path, timeout=60) as response:
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert not re.search(r"(src|href|url|import)\W+(https?:)?//", response.read().decode())


def test_it_listens_where_it_was_told():
    with server.listen("127.0.0.1", 0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        assert server.address(listening) == f"http://127.0.0.1:{port}/"
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1, port {port}: .*in use"):
            server.listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="cannot listen on nowhere.invalid, port 0"):
        server.listen("nowhere.invalid", 0)
    loopback = {
        host: server.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")
    }
    assert loopback == {
        "127.0.0.1": True,
        "::1": True,
        "localhost": True,
        "0.0.0.0": False,
        "example.org": False,
    }


SPEC = """\
task: {dim: 2, context: 6, noise: "uniform(0,2)"}
model: {kind: gd++, layers: 1}
train: {optimizer: levenberg-marquardt, steps: 1, sample: 32}
"""


def test_the_command_serves_until_ctrl_c(tmp_path):
    (tmp_path / "run.yaml").write_text(SPEC)
    innerloop = [sys.executable, "-m", "innerloop.cli"]
    subprocess.run(
        [*innerloop, "train", "run.yaml", "--out", "run"], cwd=tmp_path, check=True, capture_output=True
    )
    command = [*innerloop, "explore", "run", "--no-browser"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"the page is at (http://127\.0\.0\.1:\d+/)", said)
        assert found, said
        with urllib.request.urlopen(found[1], timeout=120) as response:
            assert "innerloop explore" in response.read().decode()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert (process.returncode, "Traceback" in rest) == (0, False), rest


# --- In Chromium

_EXTRA = "could not import '{}': it is of the extra explore-test"
sync_api = pytest.importorskip("playwright.sync_api", reason=_EXTRA.format("playwright"))
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason=_EXTRA.format("axe_playwright_python")
)
_WAIT = 120_000  # milliseconds: the sample's program is compiled meanwhile


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A Chromium of the system, or Playwright's own."""
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        except sync_api.Error as error:
            pytest.skip(
                f"Chromium is not installed (playwright install chromium): {str(error).splitlines()[0]}"
            )
        yield browser
        browser.close()


class Opened:
    """A page with what went wrong in it and what it fetched."""

    def __init__(self, chromium, served: Served, **how):
        self.page = chromium.new_page(**{"viewport": {"width": 1600, "height": 900}, **how})
        self.page.set_default_timeout(_WAIT)
        self.wrong: list[str] = []
        self.fetched: list[str] = []
        self.page.on(
            "console",
            lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(served.url)
        self.page.wait_for_selector("[data-loss='1']")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def line(self, number: int = 1) -> str:
        """The path of a run's implicit line."""
        return self.page.get_attribute(f"[data-run='{number}'] path", "d")

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for it; from here, as the page's policy lets nobody hand it code to evaluate."""
        for _ in range(600):
            if holds():
                return
            self.page.wait_for_timeout(50)
        pytest.fail("it did not happen in 30 seconds")


@pytest.fixture
def opened(chromium, alone) -> Iterator[Opened]:
    found = Opened(chromium, alone)
    yield found
    found.page.close()


@pytest.fixture
def compared(chromium, pair) -> Iterator[Opened]:
    found = Opened(chromium, pair)
    yield found
    found.page.close()


def test_it_loads_without_errors_and_from_here_only(opened, alone):
    assert opened.wrong == []
    assert [url for url in opened.fetched if not url.startswith((alone.url, "data:"))] == []
    loss = alone.explorer.losses(LossesAsked(run=0))["adjusted"]["value"]
    assert float(opened.text("[data-loss='1']")) == pytest.approx(loss, rel=5e-3), "three digits are shown"


def test_a_slider_moves_the_loss_and_the_line_and_goes_back(opened):
    loss, line = opened.text("[data-loss='1']"), opened.line()
    slider = opened.page.locator("[data-flow='1 w_yx']")
    slider.focus()
    for _ in range(30):
        slider.press("ArrowRight")
    opened.until(lambda: opened.text("[data-loss='1']") != loss)
    opened.until(lambda: opened.line() != line)
    assert "as trained" in opened.text("#loss")
    opened.page.click("#trained")
    opened.until(lambda: opened.line() == line)
    opened.until(lambda: opened.text("[data-loss='1']") == loss)
    assert "as trained" not in opened.text("#loss")


def test_arrow_keys_move_a_point_and_the_line(opened):
    point, line = opened.page.locator(".point[tabindex='0']"), opened.line()
    point.focus()
    before = [float(point.get_attribute(name)) for name in ("cx", "cy")]
    point.press("Shift+ArrowUp")
    point.press("ArrowRight")
    opened.until(lambda: opened.line() != line)
    after = [float(point.get_attribute(name)) for name in ("cx", "cy")]
    assert after[0] > before[0] and after[1] < before[1], "right and up, where SVG's y grows downwards"
    assert "moved" in point.get_attribute("class")
    point.press("PageDown")
    assert opened.page.evaluate("document.activeElement.dataset.index") == "1"
    assert "Example 2 of 8" in opened.text("#point-said")
    opened.page.click("#restore")
    opened.until(lambda: opened.line() == line)


def test_the_mouse_drags_a_point(opened):
    line = opened.line()
    opened.page.locator("#slice").scroll_into_view_if_needed()
    box = opened.page.locator(".point[data-index='3']").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened.page.mouse.move(x, y)
    opened.page.mouse.down()
    opened.page.mouse.move(x + 25, y - 40, steps=4)
    opened.page.mouse.up()
    opened.until(lambda: opened.line() != line)
    opened.page.mouse.move(x - 100, y)
    moved = opened.page.locator(".point.moved")
    assert moved.count() == 1
    ended = moved.bounding_box()
    assert ended["x"] - box["x"] == pytest.approx(25, abs=1.5)
    assert ended["y"] - box["y"] == pytest.approx(-40, abs=1.5)


def test_an_outlier_can_be_made_and_unmade(opened):
    line = opened.line()
    opened.page.click("#outlier")
    opened.until(lambda: opened.line() != line)
    assert opened.page.get_attribute("#outlier", "aria-pressed") == "true"
    opened.page.click("#outlier")
    opened.until(lambda: opened.line() == line)
    assert opened.page.locator(".point.moved").count() == 0


def test_layers_are_stepped_through(opened):
    assert opened.text("#layer-said") == "3 of 3"
    line = opened.line()
    opened.page.click("#back")
    assert opened.text("#layer-said") == "2 of 3"
    assert opened.line() != line
    opened.page.locator("#layer").press("Home")
    assert opened.text("#distance-layer") == "layer 0 of 3"
    assert opened.page.locator("#back").is_disabled()
    shown = [float(text) for text in opened.page.locator("#distances td").all_inner_texts()]
    answer = opened.page.evaluate(
        """async () => {
          const post = async (path, body) => (await fetch(path, {method: "POST", body: JSON.stringify(body)})).json();
          const {x, y} = await post("/api/draw", {n: 8, dim: 3, sigma: 1.5, seed: 0});
          return (await post("/api/context", {x, y, sigma: 1.5, flows: [null]})).references;
        }"""
    )
    lengths = [np.linalg.norm(answer[name]) for name in ("ols", "ridge", "bayes")]
    assert shown == pytest.approx(lengths, rel=5e-3), "before any layer the weights are zero"


def test_another_context_can_be_chosen(opened):
    opened.page.locator("#n").fill("30")
    opened.until(lambda: opened.page.locator(".point").count() == 30)
    opened.page.locator("#dim").fill("1")
    opened.until(lambda: opened.page.locator("#feature option").count() == 1)
    assert "trained at d = 3, n = 8" in opened.text("#dim-note")
    assert opened.wrong == []


def test_two_runs_are_compared_and_a_full_model_has_no_bars(compared):
    assert compared.page.locator("#distances thead th").all_inner_texts() == [
        "to",
        "Run 1",
        "Run 2 (ended at 2)",
    ]
    assert compared.page.locator("[data-loss]").count() == 2
    assert compared.line(1) != compared.line(2)
    assert "A FULL layer has two dense matrices" in compared.text("#flows-note")
    assert "d stays 3" in compared.text("#dim-note")
    assert compared.page.locator("[data-flow]").count() == 12
    assert compared.page.locator("#edited-label").is_hidden(), "there is one run only whose numbers move"
    line = compared.line(2)
    for _ in range(2):
        compared.page.click("#back")
    assert compared.line(2) != line, "the shallower run has ended at layer 2"
    assert compared.wrong == []


def test_a_mistake_is_said_on_the_page(opened):
    opened.page.route(
        "**/api/draw", lambda route: route.fulfill(status=400, json={"error": "no such context"})
    )
    opened.page.locator("#sigma").press("ArrowRight")
    opened.until(lambda: opened.text("#error") != "")
    assert opened.text("#error") == "no such context"


@pytest.mark.parametrize("width", [320, 375, 768, 1600])
def test_nothing_is_wider_than_the_window(chromium, pair, width):
    found = Opened(chromium, pair, viewport={"width": width, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    found.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1600])
def test_axe_finds_no_violation(chromium, pair, width, scheme):
    found = Opened(chromium, pair, viewport={"width": width, "height": 800}, color_scheme=scheme)
    violations = axe.Axe().run(found.page).response["violations"]
    found.page.close()
    assert [(each["id"], [node["html"][:100] for node in each["nodes"]]) for each in violations] == []
