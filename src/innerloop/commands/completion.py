"""What the shell is told when somebody presses Tab. Nothing here imports JAX: an answer must come at once.

The names are written down, not asked of the packages that know them, which need JAX; tests hold the two to each other.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from innerloop.study.folders import found, places

BUDGETS = {
    "smoke": "to see that it works",
    "quick": "every output at a size for a laptop",
    "full": "all",
}
OUTPUTS = {
    "vladymyrov2024": (
        "table1",
        *(f"figure{number}" for number in range(1, 8)),
        "regret",
        "curves",
        "theorems",
        "mechanisms",
        "findings",
    ),
    "goel2026": (
        "curves",
        "speed",
        "matched",
        "depth",
        "shifts",
        "positions",
        "attention",
        "probes",
        "findings",
    ),
}
PAPERS = {
    "vladymyrov2024": "Linear Transformers are Versatile In-Context Learners",
    "goel2026": "Linear against softmax attention",
}
ENGINES = {"local": "processes of this machine", "ray": "a Ray cluster"}
TRACKERS = ("tensorboard", "wandb", "mlflow")
STYLES = ("text", "markdown", "latex")
LAWS = ("uniform(0,5)", "fixed(1)", "categorical(1,3,5)")


def said_outputs() -> str:
    """For a paper's help."""
    return "; ".join(f"{paper}: {', '.join(names)}" for paper, names in OUTPUTS.items())


def said_budgets() -> str:
    """For a budget's help."""
    return " ".join(f"{name}: {what}." for name, what in BUDGETS.items())


Said = Iterator[tuple[str, str]]


def papers(incomplete: str) -> Said:
    return _starting(incomplete, PAPERS.items())


def budgets(incomplete: str) -> Said:
    return _starting(incomplete, BUDGETS.items())


def engines(incomplete: str) -> Said:
    return _starting(incomplete, ENGINES.items())


def trackers(incomplete: str) -> Said:
    return _starting(incomplete, ((name, "") for name in TRACKERS))


def styles(incomplete: str) -> Said:
    return _starting(incomplete, ((name, "") for name in STYLES))


def outputs(ctx: Any, incomplete: str) -> Said:
    """Of the paper that is on the line, of all papers if none is; after a comma, the next one."""
    before, comma, last = incomplete.rpartition(",")
    chosen = OUTPUTS.get(ctx.params.get("paper") or "")
    names = chosen or dict.fromkeys(name for each in OUTPUTS.values() for name in each)
    for name in names:
        if name.startswith(last) and name not in before.split(","):
            yield f"{before}{comma}{name}", ""


def laws(incomplete: str) -> Said:
    """Noise laws. Bash puts an answer on the line as it is, so there its parentheses are escaped."""
    for law in LAWS:
        if law.startswith(incomplete):
            yield (law.replace("(", r"\(").replace(")", r"\)") if _bare_in_bash() else law), ""


def runs(incomplete: str) -> Said:
    """Run folders, those of studies too, as the user began to write them."""
    under, prefix, name = _parts(incomplete)
    return ((prefix + path.relative_to(under).as_posix(), "") for path in found(under, starts=name))


def kept(incomplete: str) -> Said:
    """What `innerloop runs` lists: studies, and folders with runs in them."""
    under, prefix, name = _parts(incomplete)
    return ((prefix + path.relative_to(under).as_posix(), "") for path in places(under, starts=name))


def specs(incomplete: str) -> Said:
    """YAML files, here and in the folders here."""
    under, prefix, name = _parts(incomplete)
    here = [path for path in _listed(under) if path.name.startswith(name) and path.name[0] not in "._"]
    below = [path for folder in here if folder.is_dir() for path in _listed(folder)]
    files = [path for path in [*here, *below] if path.suffix in (".yaml", ".yml")]
    return ((prefix + path.relative_to(under).as_posix(), "") for path in files)


def _starting(incomplete: str, names: Iterable[tuple[str, str]]) -> Said:
    return (pair for pair in names if pair[0].startswith(incomplete))


def _parts(incomplete: str) -> tuple[Path, str, str]:
    """Of a path that is being written: the folder to look in, how it is written, and how a name in it begins."""
    head, slash, name = incomplete.rpartition("/")
    return Path(head + slash or "."), head + slash, name


def _listed(folder: Path, most: int = 1000) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry, _ in zip(entries, range(most), strict=False))
    except OSError:
        return []


def _bare_in_bash() -> bool:
    """Whether Bash asks, and the word has no quote yet."""
    words = os.environ.get("COMP_WORDS", "").splitlines()
    at = os.environ.get("COMP_CWORD", "")
    word = words[int(at)] if at.isdigit() and int(at) < len(words) else ""
    return os.environ.get("_INNERLOOP_COMPLETE") == "complete_bash" and word[:1] not in ("'", '"')
