"""What `innerloop reproduce goel2026` trains at each budget: the paper's grid, and arms on equal terms."""

import math
from dataclasses import dataclass
from typing import Any

from innerloop.papers.goel2026.matched import Arm, Setting
from innerloop.papers.goel2026.training import Program, grid


@dataclass(frozen=True)
class Budget:
    """How much is trained.

    Attributes:
        depths: of the paper's grid.
        width, heads: of its decoders; None for the published ones.
        share: of the published steps.
        every: steps between evaluations of them.
        seeds: how many of the paper's, there and on equal terms.
        setting: what arms on equal terms have in common.
        arms: what is compared there.
        descents: numbers of steps of gradient descent that layers are held against.
        seconds: about how long a job of each kind takes a core.
    """

    depths: tuple[int, ...]
    width: int | None
    heads: int | None
    share: float
    every: int
    seeds: int
    setting: Setting
    arms: tuple[Arm, ...]
    descents: tuple[int, ...]
    seconds: tuple[tuple[str, float], ...]

    def programs(self) -> list[Program]:
        """The paper's, of these depths."""
        return [program for program in grid() if program.layers in self.depths]

    def steps(self, published: int) -> int:
        """So many of a published number of steps."""
        return max(1, math.ceil(self.share * published))

    def changes(self) -> dict[str, Any]:
        """Options of the decoder other than the published ones."""
        return {
            name: value for name, value in (("width", self.width), ("heads", self.heads)) if value is not None
        }


@dataclass(frozen=True)
class Job:
    """One process' work, whose frames are files: a program of the paper, or an arm on equal terms."""

    what: Program | Arm

    @property
    def kind(self) -> str:
        return "published" if isinstance(self.what, Program) else "matched"

    @property
    def name(self) -> str:
        """That a person can read."""
        return f"{self.kind}-{self._of_what()}"

    @property
    def files(self) -> dict[str, str]:
        """The names of the files that it leaves, by the kind of frame in them."""
        kinds = ("published",) if isinstance(self.what, Program) else ("matched", "attention", "probes")
        return {kind: f"{kind}-{self._of_what()}.parquet" for kind in kinds}

    def _of_what(self) -> str:
        if isinstance(self.what, Program):
            return self.what.name
        arm = self.what
        mixers = arm.mixers.replace(",", "_").replace(":", "").replace("+", "and")
        norm = "" if arm.final_layer_norm else "-nonorm"
        depth = f"-{arm.layers}layers" if arm.layers else ""
        return f"{mixers}-{arm.feature_map}-{arm.optimizer}-{arm.data}{norm}{depth}"


BY_LAYER = "softmax,linear,linear"
BY_HEAD = "softmax:2+linear:2"
_MAIN = tuple(
    Arm(mixers, optimizer) for mixers in ("softmax", "linear", BY_LAYER) for optimizer in ("adam", "muon")
)
_DEEP = tuple(
    Arm(mixers, "muon", layers=6) for mixers in ("softmax", "linear")
)  # the paper's claim is of six layers
_MORE = (
    Arm(BY_HEAD, "muon", layers=6),
    Arm(BY_HEAD, "adam"),
    *(Arm(mixers, "muon", final_layer_norm=False) for mixers in ("softmax", "linear")),
    *(Arm(mixers, "muon", data="pool") for mixers in ("softmax", "linear")),
    *(Arm("linear", "muon", feature_map) for feature_map in ("elu1", "identity", "exp")),
)
_DESCENTS = (1, 2, 4, 8, 16)

BUDGETS = {
    "smoke": Budget(
        depths=(1,),
        width=16,
        heads=2,
        share=0.004,
        every=10,
        seeds=2,
        setting=Setting(
            layers=1,
            width=16,
            heads=2,
            steps=60,
            batch=16,
            every=20,
            judged=1024,
            rates=(("adam", (1e-3, 1e-2)),),
        ),
        arms=(Arm("softmax"), Arm("softmax:1+linear:1")),
        descents=(1, 4),
        seconds=(("published", 20.0), ("matched", 30.0)),
    ),
    # A step of three layers takes a core about 24 ms, one of six twice that: four runs an arm. 72 000 sequences are enough
    # for every arm that Muon trains to leave the plateau on which each first stays, at a loss of one; none is done.
    "quick": Budget(
        depths=(1, 3),
        width=64,
        heads=4,
        share=0.02,
        every=25,
        seeds=3,
        setting=Setting(
            steps=2250,
            batch=32,
            every=250,
            judged=1024,
            rates=(("adam", (5e-4, 1e-3)), ("muon", (5e-3, 1e-2))),
        ),
        arms=(*_DEEP, *(arm for arm in _MAIN if (arm.mixers, arm.optimizer) != (BY_LAYER, "adam"))),
        descents=_DESCENTS,
        seconds=(("published", 60.0), ("matched", 300.0)),
    ),
    # The published sizes; meant for a GPU.
    "full": Budget(
        depths=(1, 3, 6),
        width=None,
        heads=None,
        share=1.0,
        every=500,
        seeds=5,
        # 256 000 sequences. Orthogonalising is most of a step of Muon, so that a larger batch costs little.
        setting=Setting(
            width=256,
            steps=2000,
            batch=128,
            every=100,
            rates=(("adam", (3e-4, 1e-3)), ("muon", (3e-3, 1e-2))),
        ),
        arms=(*_DEEP, *_MAIN, Arm(BY_HEAD, "muon"), *_MORE),
        descents=_DESCENTS,
        seconds=(("published", 70.0), ("matched", 80.0)),
    ),
}


def jobs(budget: Budget) -> list[Job]:
    """All that a budget trains."""
    return [Job(what) for what in (*budget.programs(), *budget.arms)]
