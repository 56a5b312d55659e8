"""Second-order training of deep models through shallow ones.

Depth k + 1 starts from the solved depth k with an idle layer inserted at any place, and from cold starts: these seldom
lead at first, but where few layers have several minima they find the best one more often. All are tried on a small
sample, the better half goes on, and so forth; the best is solved, judged on a large fresh draw, and solved again with
that draw's worst sequences in the pool while its loss is carried by a few of them. The last depth is polished on a
larger fresh pool. The chain yields every depth on its way.
"""

import itertools
import json
import math
from dataclasses import asdict, dataclass, field, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from innerloop.models.linear import LinearTransformer
from innerloop.tasks import LinearRegression
from innerloop.train import second_order
from innerloop.train.objectives import Examples, Objective, draw_many
from innerloop.train.second_order import Iterate, Pool
from innerloop.types import Moments

# How far candidates are from the solved depth before, at which an idle layer's gradient may be zero.
_SPREAD = 1e-3
_LEAST = 0.25  # share of the sample and the pool that the shallowest models are solved on
_FEWEST = 64  # sequences in a Jacobian, or the whole sample
_SHALLOW = 4  # layers up to which minima lie far apart; deeper models follow where these have led
_STREAMS = {"pool": 1, "judge": 2, "polish": 3, "start": 4, "beyond": 5}


@dataclass(frozen=True)
class Place:
    """Where in its plan a chain is: numbers and words only, so that they can be stored as they are.

    Attributes:
        phase: "scout", "solve", "polish" or "done".
        iteration, slow: iterations done in this solve, and how many of the last brought little.
        total: iterations done altogether.
        rounds: how many judging draws have been used up.
        hardened: how often this depth's solution was sent back for a heavy tail.
        judged: losses of the solved depths on their judging draws.
        heat: which of the rounds of candidates this is.
        scouted: losses of the candidates already tried in it.
    """

    phase: str = "scout"
    iteration: int = 0
    slow: int = 0
    total: int = 0
    rounds: int = 0
    hardened: int = 0
    judged: tuple[float, ...] = ()
    heat: int = 0
    scouted: tuple[float, ...] = ()


@dataclass(frozen=True)
class ChainState:
    """All that a chain needs to go on, besides its settings and seed.

    Attributes:
        current: the solve in progress.
        place: where in the plan it is.
        solved: the models of depths first..k, in order.
        scouts: the candidates of this heat.
        hard: hard sequences found so far, and their weights.
        last: the model to report on after the last iteration.
    """

    current: Iterate
    place: Place = Place()
    solved: tuple[LinearTransformer, ...] = ()
    scouts: tuple[LinearTransformer, ...] = ()
    hard: Pool | None = None
    last: LinearTransformer | None = None

    def at(self, **changes) -> "ChainState":
        """The same at another place."""
        return replace(self, place=replace(self.place, **changes))


@dataclass(frozen=True)
class WarmChain:
    """Trains `model` to its depth by Levenberg-Marquardt; a trainer in the sense of `innerloop.train.loop`.

    Args:
        model: the kind, size and scales to train; its parameters are the cold start at its own depth.
        task: the problem.
        objective: see `innerloop.train.objectives`.
        seed: everything random follows from it.
        warm: go through all depths from 1; else solve the model's depth from `starts` cold starts.
        starts: cold starts at each depth.
        sample: sequences in a Jacobian of the deepest model, and fewer for shallower ones, by the square of the depth;
            pool: sequences on which a trial is judged, likewise; polish: both times this at the end.
        scout: sequences in a Jacobian of candidates, if there are so many; their pool is smaller in proportion.
        judge: sequences on which every depth is judged.
        guard: weight of the loss on `beyond` sequences, half of the largest label energy, half of the largest eigenvalue of
            their inputs, among many whose labels are up to a third too large: where deep models break, which one sequence
            in a million shows, a pool of this size never.
        steps: at most so many iterations a depth, twice that at the last.
        heats: the share of the candidates in each round, and for how many iterations; of a shallow model, by whose first
            few nothing can be told yet, and of a deep one.
    """

    model: LinearTransformer
    task: LinearRegression
    objective: Objective = "bayes"
    seed: int = 0
    warm: bool = True
    starts: int = 4
    sample: int = 4096
    pool: int = 12288
    scout: int = 512
    polish: int = 3
    judge: int = 102_400
    steps: int = 30
    heats: tuple[tuple[tuple[float, int], ...], ...] = (
        ((1.0, 8), (0.5, 8), (0.2, 10)),
        ((1.0, 4), (0.3, 6)),
    )
    hard: int = 256
    guard: float = 1e-3
    beyond: int = 1024
    tolerance: float = 1e-3
    tail: float = 0.015  # share of the judging draw's loss that its ten worst sequences may carry
    _drawn: dict = field(default_factory=dict, compare=False, repr=False)

    def start(self) -> ChainState:
        first = self._candidates(())
        pool = self._pool("scout", first[0].layers, None)
        return ChainState(second_order.start(first[0], pool), scouts=first)

    def finished(self, state: ChainState) -> bool:
        return state.place.phase == "done"

    def progress(self, state: ChainState) -> float:
        """Share of the work done, from 0 to 1; deeper models cost more."""
        if self.finished(state):
            return 1.0
        cost = np.array([depth + 2.0 for depth in self._depths()])
        share = {"scout": 0.2, "solve": 0.5, "polish": 0.8}[state.place.phase]
        done = len(state.solved) - (state.place.phase == "polish")
        return float((cost[:done].sum() + share * cost[done]) / cost.sum())

    def current(self, state: ChainState) -> LinearTransformer:
        return state.solved[-1] if self.finished(state) or state.last is None else state.last

    def by_depth(self, state: ChainState) -> dict[int, LinearTransformer]:
        """The solved model of every depth on the way."""
        return {model.layers: model for model in state.solved}

    def advance(self, state: ChainState) -> tuple[ChainState, dict]:
        """One Levenberg-Marquardt iteration, and what follows from it."""
        place = state.place
        layers = state.current.model.layers
        sample = round(self.sample * self._share(place.phase, layers))
        after = second_order.iterate(
            state.current,
            self._pool(place.phase, layers, state.hard),
            sample=sample,
            hard=min(self.hard, sample // 8),
            rng=np.random.default_rng([self.seed, place.total]),
        )
        gain = 1 - after.loss / state.current.loss if np.isfinite(state.current.loss) else 1.0
        little = gain < self.tolerance / (4 if place.phase == "polish" else 1)
        row = {
            "phase": place.phase,
            "layers": after.model.layers,
            "loss": after.loss,
            "damping": after.damping,
        }
        # While candidates are tried, what has been learned is the depth before.
        learned = state.solved[-1] if place.phase == "scout" and state.solved else after.model
        state = replace(state, current=after, last=learned).at(
            iteration=place.iteration + 1, total=place.total + 1, slow=place.slow + 1 if little else 0
        )
        deepest = after.model.layers == self.model.layers  # only this one must be solved to the end
        limits = {
            "scout": self._heats(after.model)[place.heat][1],
            "solve": self.steps * (1 + deepest),
            "polish": self.steps // 3,
        }
        if after.stalled or state.place.slow >= 2 or state.place.iteration >= limits[place.phase]:
            state = {"scout": self._scouted, "solve": self._solved, "polish": self._polished}[place.phase](
                state
            )
        return state, row

    def pack(self, state: ChainState) -> dict[str, np.ndarray]:
        """The state as named arrays, for a checkpoint."""
        arrays = {
            "current": second_order.flat(state.current.model),
            **{f"solved_{model.layers}": second_order.flat(model) for model in state.solved},
            **{f"scout_{index}": second_order.flat(model) for index, model in enumerate(state.scouts)},
        }
        if state.hard is not None:
            examples = state.hard.examples
            arrays |= {"hard_S": examples.moments.S, "hard_target": examples.target}
            arrays |= {"hard_probes": examples.probes, "hard_weights": state.hard.weights}
        numbers = asdict(state.place) | {
            "layers": state.current.model.layers,
            "damping": state.current.damping,
            "stalled": state.current.stalled,
        }
        return {name: np.asarray(value) for name, value in arrays.items()} | {
            "numbers": np.array(json.dumps(numbers))
        }

    def unpack(self, arrays: dict[str, np.ndarray]) -> ChainState:
        """The inverse of `pack`."""
        numbers = json.loads(str(arrays["numbers"]))
        layers, damping, stalled = (numbers.pop(name) for name in ("layers", "damping", "stalled"))
        place = Place(**numbers | {name: tuple(numbers[name]) for name in ("judged", "scouted")})
        hard = None
        if "hard_S" in arrays:
            moments = Moments(S=arrays["hard_S"], n=self.task.context)
            examples = Examples(moments, arrays["hard_target"], arrays["hard_probes"])
            hard = Pool(examples, arrays["hard_weights"])
        model = self._unflat(arrays["current"], layers)
        current = second_order.start(model, self._pool(place.phase, layers, hard), damping)
        return ChainState(
            current=replace(current, stalled=stalled),
            place=place,
            solved=tuple(
                self._unflat(arrays[f"solved_{k}"], k) for k in self._depths() if f"solved_{k}" in arrays
            ),
            scouts=tuple(
                self._unflat(arrays[f"scout_{index}"], layers)
                for index in itertools.takewhile(lambda k: f"scout_{k}" in arrays, itertools.count())
            ),
            hard=hard,
        )

    def _scouted(self, state: ChainState) -> ChainState:
        """The next candidate, the next heat, or the solve of the best."""
        model, heat = state.current.model, state.place.heat
        heats = self._heats(model)
        last = heat + 1 == len(heats) or len(state.scouts) == 1
        # Scouts run on a part of the pool, and what they lose there says who goes on; all of it says which is best.
        losses = state.current.losses
        if last:
            losses = second_order.pool_losses(model, self._pool("solve", model.layers, state.hard).examples)
        losses = np.sort(losses)[: -max(1, len(losses) // 1000)]  # but for poles, which the solve will cure
        scouted = (*state.place.scouted, float(losses.mean()))
        scouts = list(state.scouts)
        scouts[len(scouted) - 1] = model
        if len(scouted) < len(scouts):
            state = replace(state, scouts=tuple(scouts)).at(scouted=scouted)
            return self._begin(state, scouts[len(scouted)], "scout")
        best = np.argsort(np.nan_to_num(scouted, nan=np.inf), kind="stable")
        if not last:
            left = math.ceil(len(scouts) * heats[heat + 1][0] / heats[heat][0])
            chosen = tuple(scouts[k] for k in best[:left])
            state = replace(state, scouts=chosen).at(scouted=(), heat=heat + 1)
            return self._begin(state, chosen[0], "scout")
        state = replace(state, scouts=()).at(scouted=(), heat=0, hardened=0)
        return self._begin(state, scouts[best[0]], "solve")

    def _solved(self, state: ChainState) -> ChainState:
        """The same depth again with harder sequences, the next depth, or the polish."""
        model, hardened = state.current.model, state.place.hardened
        loss, heavy, state = self._judged(state)
        if heavy and hardened < 4:
            return self._begin(state.at(hardened=hardened + 1), model, "solve")
        state = replace(state, solved=(*state.solved, model)).at(
            judged=(*state.place.judged, loss), hardened=0
        )
        if model.layers < self.model.layers:
            scouts = self._candidates(state.solved)
            return self._begin(replace(state, scouts=scouts), scouts[0], "scout")
        return self._begin(state, model, "polish")

    def _polished(self, state: ChainState) -> ChainState:
        """Once more, or the end with the better of the polished and the unpolished model."""
        model, draw, hardened = state.current.model, state.place.rounds, state.place.hardened
        loss, heavy, state = self._judged(state)
        if heavy and hardened < 2:
            return self._begin(state.at(hardened=hardened + 1), model, "polish")
        # Both on the draw that neither has been trained on.
        unpolished = second_order.mean_loss(state.solved[-1], self._draw("judge", draw, self.judge))
        if loss <= unpolished:
            state = replace(state, solved=(*state.solved[:-1], model)).at(
                judged=(*state.place.judged[:-1], loss)
            )
        return state.at(phase="done")

    def _judged(self, state: ChainState) -> tuple[float, bool, ChainState]:
        """The loss on a fresh draw, whether a few sequences carry it, and a state that has learned which."""
        examples = self._draw("judge", state.place.rounds, self.judge)
        losses = second_order.pool_losses(state.current.model, examples).astype(np.float64)  # for their sums
        loss = float(losses.mean())
        heavy = not np.isfinite(loss) or bool(np.sort(losses)[-10:].sum() > self.tail * losses.sum())
        if not heavy:
            return loss, heavy, state
        worst = np.argsort(-np.nan_to_num(losses, nan=np.inf), kind="stable")[: self.hard]
        hard = Pool(second_order.take(examples, worst), np.full(len(worst), 1 / len(losses)))
        if state.hard is not None:
            hard = (state.hard + hard).newest(self.pool // 4)
        return loss, heavy, replace(state, hard=hard).at(rounds=state.place.rounds + 1)

    def _begin(self, state: ChainState, model: LinearTransformer, phase: str) -> ChainState:
        current = second_order.start(model, self._pool(phase, model.layers, state.hard))
        return replace(state, current=current).at(phase=phase, iteration=0, slow=0)

    def _depths(self) -> range:
        return range(1 if self.warm else self.model.layers, self.model.layers + 1)

    def _candidates(self, solved: tuple[LinearTransformer, ...]) -> tuple[LinearTransformer, ...]:
        """The starting models of the next depth."""
        layers = self._depths()[len(solved)]
        made = [self._cold(layers, index) for index in range(self.starts)]
        if solved:
            idle = [deeper for place in range(layers) for deeper in solved[-1].insert_idle_layer(place)]
            made += [_nudged(deeper, (self.seed, place)) for place, deeper in enumerate(idle)]
        return tuple(made)

    def _heats(self, model: LinearTransformer) -> tuple[tuple[float, int], ...]:
        return self.heats[model.layers > _SHALLOW]

    def _cold(self, layers: int, index: int) -> LinearTransformer:
        if layers == self.model.layers and index == 0:
            return self.model
        return _in_double(self.model.restart(layers, key=self._key("start", 100 * layers + index)))

    def _pool(self, phase: str, layers: int, hard: Pool | None) -> Pool:
        share = self._share(phase, layers)
        if phase == "polish":
            examples = self._draw("polish", 0, round(self.pool * share))
        else:
            examples = _first(self._draw("pool", 0, self.pool), share)
        pool = Pool.of(examples).with_hard(hard)
        if self.guard == 0:
            return pool
        beyond = _first(self._draw("beyond", 0, self.beyond), min(1.0, share))
        return pool + Pool(beyond, np.full(len(beyond.target), self.guard / len(beyond.target)))

    def _share(self, phase: str, layers: int) -> float:
        """Of `sample` and `pool`, how much this phase uses: few parameters are known from few sequences."""
        if phase == "polish":
            return self.polish
        share = max(_LEAST, (layers / self.model.layers) ** 2)
        if phase == "scout":
            share = min(share, self.scout / self.sample)
        return min(1.0, max(share, _FEWEST / self.sample))

    def _draw(self, stream: str, index: int, count: int) -> Examples:
        """A pure function of (seed, stream, index); the last few draws are kept."""
        name = (stream, index, count)
        if name not in self._drawn:
            while len(self._drawn) >= 4:
                self._drawn.pop(next(iter(self._drawn)))
            key = self._key(stream, index)
            if stream == "beyond":
                many = draw_many(self.task, self.objective, key, 16 * count, beyond=True)
                self._drawn[name] = second_order.take(many, _extreme(many.moments.S, count))
            else:
                self._drawn[name] = draw_many(self.task, self.objective, key, count)
        return self._drawn[name]

    def _key(self, stream: str, index: int):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), _STREAMS[stream]), index)

    def _unflat(self, theta: np.ndarray, layers: int) -> LinearTransformer:
        shapes = eqx.filter_eval_shape(lambda key: self.model.restart(layers, key=key), jax.random.key(0))
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)  # restart, without drawing
        return second_order.unflat(like, theta)


def _extreme(S: np.ndarray, count: int) -> np.ndarray:
    """So many contexts, half of the largest label energy, half of the largest eigenvalue of their inputs."""
    longest = np.linalg.eigvalsh(S[:, :-1, :-1])[:, -1]
    by_labels, by_inputs = (np.argsort(-size, kind="stable") for size in (S[:, -1, -1], longest))
    first = by_labels[: count // 2]
    return np.concatenate([first, by_inputs[~np.isin(by_inputs, first)][: count - len(first)]])


def _first(examples: Examples, share: float) -> Examples:
    return second_order.take(examples, np.arange(round(len(examples.target) * share)))


def _nudged(deeper: LinearTransformer, seed: tuple[int, ...]) -> LinearTransformer:
    """`deeper`, whose idle layer is at zero, off the saddle that exact zeros are."""
    theta = second_order.flat(deeper)
    noise = np.random.default_rng([*seed, deeper.layers]).normal(size=theta.shape)
    return second_order.unflat(deeper, theta + _SPREAD * noise)


def _in_double(model: LinearTransformer) -> LinearTransformer:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
