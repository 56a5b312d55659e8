"""What is trained to reproduce the paper: one study a budget, and which runs yield which entry of Table 1.

A warm chain of Levenberg-Marquardt passes through all shallower depths, so DIAG and GD++ need one run a problem. FULL,
which Muon trains, needs a run a depth where it starts from random values, as in `smoke` and `quick`, and one run where it
starts from a deeper model or from DIAG, as in `full`. There some chains have two seeds, and some FULL runs of three and of
five layers besides: where several runs yield a model, `chosen` keeps the best.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from innerloop.papers.options import budget_of
from innerloop.papers.vladymyrov2024.printed import CONTEXT, DIM
from innerloop.probe.constructions import CONDITIONS, CONTEXTS
from innerloop.study import Plan, StudySpec, make_plan
from innerloop.study.plan import PlannedRun

DEPTHS = range(1, 8)  # of Table 1
SPREAD = "uniform(0,5)"  # the problem of Figures 5 and 7, and of what is read off trained models
MATRICES = "categorical(1,3)"  # the problem of Figure 4
NOISELESS = "fixed(0)"
HEAVY = 4  # layers from which the mean without noise is carried by one sequence in 100 000 or fewer
METHODS = {
    ("gd++", 1): "gd++",
    ("diag", 1): "diag",
    ("diag", 2): "diag free",
    ("full", 1): "full",
    ("full", 2): "full two heads",
}
PAPERS = ("gd++", "diag", "full")  # the methods that the paper has
# Whose models can be those of the method exactly.
_CONTAINED = {
    "gd++": (),
    "diag": ("gd++",),
    "diag free": ("gd++", "diag"),
    "full": ("gd++", "diag"),
    "full two heads": ("gd++", "diag", "diag free", "full"),
}

_UNIFORM = tuple(f"uniform(0,{top})" for top in range(1, 8))
_THREE = "categorical(1,3,5)"
_ALL = (NOISELESS, *_UNIFORM, "categorical(1,3)", _THREE)
# So little noise that FULL of up to three layers has poles, where it does not start from DIAG.
_LITTLE = ("uniform(0,1)", "uniform(0,2)")
# Where a model of four layers without one of them has the weaker pole, of all FULL of three layers.
_DEEPER = ("uniform(0,3)", "uniform(0,4)")
_FROM_DIAG = {
    "train.start": "diag",
    "train.learning_rate": 1e-3,
    "train.steps": 1000,
    "train.starts": 8,
    "train.sample": 2048,
}
_SPECTRAL = {"train.optimizer": "spectral", "train.starts": 8}
_CHAINS = (("gd++", 1, 7), ("diag", 1, 7), ("diag", 2, 7))


def _others(*laws: str) -> list[str]:
    """All problems but these."""
    return [law for law in _ALL if law not in laws]


class Entry(NamedTuple):
    """One trained model: the problem as text, its method's name in tables, its depth and its seed."""

    problem: str
    method: str
    layers: int
    seed: int


@dataclass(frozen=True)
class Budget:
    """How much of the paper is trained, and on how much it is judged.

    Attributes:
        problems: laws of sigma, Table 1's columns.
        models: (kind, heads, layers) of the runs.
        steps: of Muon, by depth.
        seeds: how many, of the paper's models on `SPREAD`.
        chains: how many seeds the chains of the paper's models have elsewhere at most, of which the better is kept.
        contained: whether a method may have, elsewhere, a model of a method that it contains.
        skip: more combinations that are left out, as in a study file.
        when: more settings for some runs, as in a study file.
        sequences: that every entry of Table 1 is judged on.
        further_draws: draws of 100 000 more, for the entries without noise whose mean single sequences carry.
        profile: sequences a level of a profile over sigma; levels: how many there are.
        probes: sequences on which mechanisms are measured and theorems checked.
        conditions, contexts: condition numbers and context lengths at which Theorems 5.1 and 5.2 are checked.
    """

    problems: tuple[str, ...]
    models: tuple[tuple[str, int, int], ...]
    steps: dict[int, int]
    seeds: int
    sequences: int
    profile: int
    levels: int
    probes: int
    chains: int = 1
    contained: bool = False
    further_draws: int = 0
    conditions: tuple[float, ...] = CONDITIONS
    contexts: tuple[int, ...] = CONTEXTS
    skip: tuple[dict[str, Any], ...] = ()
    when: tuple[dict[str, Any], ...] = ()


# Seconds of one core, from which the budgets were cut: a chain of 7 layers takes 75 (DIAG and two heads, sample 1024) or 40
# (GD++); a step of Muon on 512 sequences 10, 13, 20 and 30 milliseconds at 1, 2, 4 and 7 layers, twice that in float64.
BUDGETS = {
    "smoke": Budget(
        problems=(SPREAD, MATRICES),
        models=(("gd++", 1, 1), ("diag", 1, 2), ("full", 1, 1)),
        steps={1: 100},
        seeds=1,
        sequences=16_384,
        profile=512,
        levels=9,
        probes=2048,
        conditions=(10.0, 100.0),
        contexts=(100, 1000),
        skip=({"task.noise": MATRICES, "model.kind": ["gd++", "diag"]},),
        when=(
            {"if": {"model.kind": "diag"}, "set": {"train.steps": 6, "train.sample": 128, "train.starts": 2}},
            {"if": {"model.kind": "gd++"}, "set": {"train.optimizer": "adam", "train.steps": 100}},
        ),
    ),
    # Smaller samples and fewer iterations than the default, and few steps of Muon: losses are near the optimum, not at it.
    "quick": Budget(
        problems=(NOISELESS, "uniform(0,1)", "uniform(0,3)", SPREAD, "uniform(0,7)", MATRICES),
        models=(*_CHAINS, *(("full", 1, layers) for layers in (1, 2, 4, 7))),
        steps={1: 300, 2: 400, 4: 600, 7: 800},
        seeds=1,
        sequences=100_000,
        profile=1024,
        levels=29,
        probes=16_384,
        skip=({"model.kind": "diag", "model.heads": 2, "task.noise": _others(SPREAD)},),
        when=(
            {
                "if": {"model.kind": "diag"},
                "set": {"train.sample": 768, "train.steps": 20},
            },
            {"if": {"model.kind": "gd++"}, "set": {"train.sample": 384}},
        ),
    ),
    # 3 models x 7 depths x 10 problems, and what the paper lacks: an hour of one core for chains, two and a half for Muon.
    "full": Budget(
        problems=_ALL,
        models=(
            *_CHAINS,
            ("full", 1, 7),
            ("full", 2, 7),
            *((kind, 1, 8) for kind in PAPERS),  # Figure 7
            # Rivals of what the deeper yield, where they were seen to be the better.
            ("full", 1, 3),
            ("diag", 1, 5),
            ("full", 1, 5),
        ),
        steps={3: 3000, 5: 5000, 7: 5000, 8: 5000},
        seeds=5,
        chains=2,
        contained=True,
        sequences=1_000_000,
        further_draws=90,
        profile=8192,
        levels=29,
        probes=65_536,
        skip=(
            {"model.layers": 8, "task.noise": _others(SPREAD)},
            {"model.layers": 8, "train.seed": [1, 2, 3, 4]},
            {"model.kind": "diag", "model.layers": 5, "task.noise": _others(NOISELESS)},
            {"model.kind": "full", "model.layers": 3, "task.noise": _others(*_LITTLE, *_DEEPER, MATRICES)},
            {"model.kind": "full", "model.layers": 5, "task.noise": _others("uniform(0,1)", MATRICES)},
            {"model.kind": "full", "model.heads": 2, "task.noise": _others(SPREAD, MATRICES, _THREE)},
        ),
        when=(
            {
                "if": {"model.kind": ["gd++", "diag"], "model.heads": 1},
                "set": {"train.starts": 8, "train.sample": 2048},
            },
            # Another seed of GD++ is solved as a function of eigenvalues, from far more starts than a chain has; without
            # noise there is no chain beside it, since which sample that has decides where it breaks.
            {
                "if": {"model.kind": "gd++", "train.seed": [1], "task.noise": _others(SPREAD)},
                "set": _SPECTRAL,
            },
            {"if": {"model.kind": "gd++", "task.noise": NOISELESS}, "set": _SPECTRAL},
            {
                "if": {"model.kind": "diag", "model.heads": 2},
                "set": {"train.starts": 8, "train.sample": 1024},
            },
            # With little noise or none shallow models have poles that small samples do not show.
            {
                "if": {"model.kind": "diag", "model.heads": 2, "task.noise": [NOISELESS, *_LITTLE]},
                "set": {"train.sample": 2048},
            },
            {"if": {"model.kind": "full", "model.layers": [3, 7, 8]}, "set": {"train.start": "deeper"}},
            # Without noise, and with little of it in few layers, Muon alone stays above DIAG, which FULL contains.
            {"if": {"model.kind": "full", "model.layers": 3, "task.noise": list(_LITTLE)}, "set": _FROM_DIAG},
            {
                "if": {"model.kind": "full", "task.noise": NOISELESS},
                "set": _FROM_DIAG,
            },
            # Three levels take longer.
            {
                "if": {"model.kind": "full", "model.heads": 1, "task.noise": _THREE},
                "set": {"train.steps": 8000},
            },
            {
                "if": {"model.kind": "full", "model.heads": 2, "task.noise": _THREE},
                "set": {"train.steps": 6000},
            },
        ),
    ),
}


def plan_of(name: str, *, workers: int = 1) -> Plan:
    """All runs of the budget of this name, as a study.

    Raises:
        SpecError: there is no such budget.
    """
    return make_plan(_study(budget_of(name, BUDGETS)), f"vladymyrov2024-{name}", workers=workers)


def _study(budget: Budget) -> StudySpec:
    seeds = list(range(budget.seeds))
    others = [law for law in budget.problems if law != SPREAD]
    fewer = [
        (1, {"model.heads": 2, "task.noise": _others(*_LITTLE)}),  # there one seed has poles
        (1, {"model.kind": "full", "task.noise": others}),
        (budget.chains, {"task.noise": others}),
        (1, {"model.kind": "gd++", "task.noise": NOISELESS}),  # there is no sample of which a second could be
    ]
    in_double = {"model.kind": "full", "task.noise": NOISELESS}  # published losses there reach 2.5e-12
    steps = [
        {"if": {"model.kind": "full", "model.layers": layers}, "set": {"train.steps": count}}
        for layers, count in budget.steps.items()
    ]
    return StudySpec.model_validate(
        {
            "base": {
                "task": {"dim": DIM, "context": CONTEXT},
                "evaluate": {"sequences": min(budget.sequences, 100_000)},
            },
            "axes": {
                "task.noise": list(budget.problems),
                "model.kind, model.heads, model.layers": [list(model) for model in budget.models],
                "train.seed": seeds,
            },
            "when": [*steps, {"if": in_double, "set": {"train.precision": "float64"}}, *budget.when],
            "skip": [
                *({"train.seed": seeds[count:], **some} for count, some in fewer if seeds[count:]),
                *budget.skip,
            ],
        }
    )


def candidates(runs: Iterable[PlannedRun], budget: Budget) -> dict[Entry, tuple[str, ...]]:
    """Every model that the runs yield, and the names of those that yield it, the shallowest first; where the budget says so
    then of those that yield a model which it contains."""
    own: dict[Entry, tuple[str, ...]] = {}
    for run in sorted(runs, key=lambda run: run.spec.model.layers):
        spec = run.spec
        for layers in spec.depths():
            method = METHODS[spec.model.kind, spec.model.heads]
            seed = spec.train.seed if spec.task.noise == SPREAD else 0  # elsewhere seeds are rivals
            entry = Entry(spec.task.noise, method, layers, seed)
            own[entry] = (*own.get(entry, ()), run.name)

    def contained(entry: Entry) -> Iterator[str]:
        if budget.contained and entry.problem != SPREAD:
            for method in _CONTAINED[entry.method]:
                yield from own.get(entry._replace(method=method), ())

    return {entry: (*names, *contained(entry)) for entry, names in own.items()}
