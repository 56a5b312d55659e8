"""Draws docs/figures/explore.png, the page of `innerloop explore` with two runs, by Chromium.

    pip install -e ".[explore-test]"
    innerloop demo
    python benchmarks/explore_screenshot.py demo/runs/diag-4l-2h-d10-n20-uniform-0-5-seed0 \\
        demo/runs/gdpp-2l-d10-n20-uniform-0-5-seed0 --out docs/figures/explore.png
"""

import argparse
import shutil
import threading
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright

from innerloop.explore import Explorer, server
from innerloop.study import load_run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("runs", nargs="+")
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--width", type=int, default=1240)
parser.add_argument("--scheme", choices=["light", "dark"], default="light")
chosen = parser.parse_args()
# The page names a run as it was asked for; a picture names it by its folder.
runs = [replace(load_run(run), folder=Path("runs") / Path(run).name) for run in chosen.runs]

with server.listen("127.0.0.1", 0) as listening, sync_playwright() as playwright:
    serving = server.server(Explorer(runs), "127.0.0.1")
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
    page = browser.new_page(viewport={"width": chosen.width, "height": 900}, color_scheme=chosen.scheme)
    page.goto(server.address(listening))
    page.wait_for_selector("[data-loss='1']", timeout=300_000)
    page.screenshot(path=chosen.out, full_page=True)
    browser.close()
    serving.should_exit = True
    thread.join()
