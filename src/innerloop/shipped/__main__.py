"""Trains the models that the package ships and writes their files; what a killed call has done, the next goes on with.

    python -m innerloop.shipped                          # all that have no file yet
    python -m innerloop.shipped --only diag-uniform5     # the models of one training, anew if they are there

A training of DIAG or GD++ is a warm chain, which solves every depth on its way: several of them are shipped.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import jax

import innerloop
from innerloop.evaluation import evaluate_many
from innerloop.evaluation.losses import Evaluation
from innerloop.files import write_atomically
from innerloop.models import LinearTransformer
from innerloop.study import Run, RunSpec, parse_spec, train_run

FOLDER = Path(__file__).parent / "models"
_SEQUENCES = 102_400


@dataclass(frozen=True)
class Source:
    """A training, and which of its depths are shipped."""

    kind: str
    noise: str
    law: str
    depths: tuple[int, ...] = (4, 7)
    heads: int = 1
    train: tuple[tuple[str, object], ...] = ()

    @property
    def prefix(self) -> str:
        """Free DIAG, the better one, goes without saying; one head is named."""
        return f"{self.kind}-1h" if self.kind == "diag" and self.heads == 1 else self.kind

    @property
    def name(self) -> str:
        return f"{self.prefix}-{self.noise}"

    def name_of(self, layers: int) -> str:
        return f"{self.prefix}-{layers}-{self.noise}"

    def spec(self) -> RunSpec:
        return parse_spec(
            {
                "task": {"noise": self.law},
                "model": {"kind": self.kind, "layers": max(self.depths), "heads": self.heads},
                "train": dict(self.train),
            }
        )


_CHAIN = (("sample", 2048),)  # half of the default's; a chain of 7 layers takes a minute on two cores
_LAWS = {f"uniform{top}": f"uniform(0,{top})" for top in range(1, 8)}
_LAWS |= {f"fixed{level}": f"fixed({level})" for level in (1, 3, 5)}
_LAWS |= {"categorical13": "categorical(1,3)", "categorical135": "categorical(1,3,5)"}

SOURCES = [
    *(
        Source("diag", noise, law, heads=2, train=_CHAIN)
        for noise, law in _LAWS.items()
        if noise != "uniform5"
    ),
    *(
        Source("diag", noise, _LAWS[noise], train=_CHAIN)
        for noise in ("uniform1", "uniform3", "uniform7", "categorical13")
    ),
    # The problem that the documentation looks at most.
    Source("diag", "uniform5", _LAWS["uniform5"], (3, 4, 7), heads=2),
    Source("diag", "uniform5", _LAWS["uniform5"], (3, 4, 7)),
    Source("gd++", "uniform5", "uniform(0,5)", train=(("sample", 512),)),
    Source("full", "categorical13", "categorical(1,3)", (4,), train=(("steps", 3000),)),
]


def main() -> None:
    named = {source.name: source for source in SOURCES}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=named, action="append")
    parser.add_argument("--runs", type=Path, default=Path("runs/shipped"), help="where the runs are kept")
    options = parser.parse_args()
    for name in options.only or named:
        source = named[name]
        if options.only or not all((FOLDER / f"{source.name_of(k)}.json").exists() for k in source.depths):
            make(source, options.runs / source.name)


def make(source: Source, folder: Path) -> None:
    """Train in `folder`, or go on there, judge, and write the models' files."""
    run = train_run(source.spec(), folder, resume=True)
    models = {depth: run.exact_by_depth[depth] for depth in source.depths}
    found = evaluate_many(
        {str(depth): model for depth, model in models.items()},
        run.spec.task.build(),
        sequences=_SEQUENCES,
        per_layer=False,
    )
    for depth, model in models.items():
        content = describe(source, run, model, found[str(depth)])
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(
            FOLDER / f"{content['name']}.json", lambda file, text=text: file.write(text.encode())
        )
        print(f"{content['name']}: adjusted loss {content['results']['adjusted_loss']}", flush=True)


def describe(source: Source, run: Run, model: LinearTransformer, found: Evaluation) -> dict:
    """What a model's file holds."""
    about = json.loads((Path(run.folder) / "environment.json").read_text())
    return {
        "name": source.name_of(model.layers),
        "layers": model.layers,
        "spec": run.spec.model_dump(mode="json"),
        "results": {
            "adjusted_loss": found.adjusted_loss.as_dict(),
            "floor": found.floor.as_dict(),
            "regret": found.regret.as_dict(),
            "worst_share": found.worst_share,
            "not_finite": found.not_finite,
            "sequences": found.sequences,
            "seed": 0,
        },
        "provenance": {
            "command": f"python -m innerloop.shipped --only {source.name}",
            "seconds": run.seconds,
            "version": innerloop.__version__,
            **{name: about[name] for name in ("git_revision", "jax", "python", "platform")},
        },
        "parameters": [leaf.tolist() for leaf in jax.tree.leaves(model)],
    }


if __name__ == "__main__":
    main()
