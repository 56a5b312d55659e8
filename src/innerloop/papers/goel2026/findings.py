"""What the trained decoders say of the paper's claims: as published, on equal terms, and of hybrids."""

from typing import NamedTuple

import numpy as np
import polars as pl

from innerloop.evaluation.convergence import ratio_of_means, samples_to, sequences_until
from innerloop.papers.findings import Finding, answered, finding
from innerloop.papers.goel2026.data import POINTS
from innerloop.papers.goel2026.published import published

AS_PUBLISHED = "Does linear attention converge faster, as published?"

_FRACTION = 0.9  # of the way from the first loss to the best, which is what the paper counts samples to
_PLAIN = ("softmax", "linear")
_LEARNED = 0.9  # of the loss of predicting zero: what ends above it is still on its first plateau


def findings(as_published: pl.DataFrame, matched: pl.DataFrame) -> pl.DataFrame:
    """All questions, from the frames of the jobs of both kinds."""
    *compared, rates = _on_equal_terms(matched)
    below = _below_published(as_published, matched.filter("chosen"))
    return _said(_speed_as_published(as_published), *compared, below, rates)


def on_equal_terms(matched: pl.DataFrame) -> pl.DataFrame:
    """The questions that arms on equal terms alone answer."""
    return _said(*_on_equal_terms(matched))


def _on_equal_terms(matched: pl.DataFrame) -> list[pl.DataFrame]:
    chosen = matched.filter("chosen")
    return [
        _speed_on_equal_terms(chosen),
        _speed_to_the_same(chosen),
        _better_on_equal_terms(chosen),
        _hybrids(chosen),
        _variants(chosen),
        _optimizers(chosen),
        _rates(matched),
    ]


def _said(*tables: pl.DataFrame) -> pl.DataFrame:
    """Those with something to say."""
    return pl.concat([table for table in tables if len(table)])


def _speed_as_published(frame: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for (layers,), own in _last(frame.filter(set="isotropic")).group_by("layers", maintain_order=True):
        if not learned(own):
            note = "the better of the two, still on the plateau at the loss of predicting zero: no ratio"
            rows.append(finding(f"{depth(layers)}: loss at the end", float(_least_end(own)), note=note))
            continue
        needed = {name: sequences_needed(own.filter(architecture=name)) for name in ("quadratic", "linear")}
        if all(len(each) for each in needed.values()):
            rows += _findings([_ratio(depth(layers), needed["quadratic"], needed["linear"])])
    answer = (
        f"Training sequences of softmax over those of linear attention to {_FRACTION:.0%} of the way; published: "
        f"{published()['published']['convergence_speed_ratio']}. Learning rate, batch and final LayerNorm differ between "
        "the two, as in the public code, so this is no statement about attention."
    )
    return answered(AS_PUBLISHED, answer, rows)


def _speed_on_equal_terms(frame: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for name, arms in _comparable(frame):
        softmax, linear = (
            sequences_needed(_last(arms.filter(set="test", mixers=mixers))) for mixers in _PLAIN
        )
        rows.append(_ratio(name, softmax, linear))
    answer = (
        "The same ratio with one stream of sequences, batch, number of samples and final LayerNorm for both, each at the "
        "learning rate that was best for it on a validation stream. Above 1 linear attention is faster. The way is each "
        "one's own, to its own end: of two that are still falling, each is said to arrive at the end."
        + _counted(rows)
    )
    return answered("Does linear attention converge faster on equal terms?", answer, _findings(rows))


def _speed_to_the_same(frame: pl.DataFrame) -> pl.DataFrame:
    """Sequences to the least loss that every seed of both reaches."""
    rows = []
    for name, arms in _comparable(frame):
        curves = [_curves(_last(arms.filter(set="test", mixers=mixers))) for mixers in _PLAIN]
        level = max(float(losses[:, -1].max()) for _, losses in curves)
        if level < _LEARNED:
            softmax, linear = (sequences_until(*curve, level) for curve in curves)
            rows.append(_ratio(name, softmax, linear, f"to {level:.3g}"))
    answer = (
        "Training sequences of softmax over those of linear attention until the test loss is as low as the highest at "
        f"which a seed of either ends, where that is below {_LEARNED}. Above 1 linear attention is there sooner."
        + _counted(rows)
    )
    return answered("Which attention is sooner at the loss that both reach?", answer, _findings(rows))


def _better_on_equal_terms(frame: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for name, arms in _comparable(frame):
        softmax, linear = (_ends(arms.filter(mixers=mixers)) for mixers in _PLAIN)
        rows.append(_ratio(name, softmax, linear))
    answer = (
        "Test loss of softmax over that of linear attention at the end of training. Above 1 linear attention is better."
        + _counted(rows)
    )
    return answered("Which attention is better on equal terms?", answer, _findings(rows))


def _hybrids(frame: pl.DataFrame) -> pl.DataFrame:
    """Every hybrid against the better of the two plain mixers under the same optimiser."""
    rows = []
    for (optimizer, layers), arms in _plain(frame).group_by("optimizer", "layers", maintain_order=True):
        ends = {str(mixers): _ends(own) for (mixers,), own in arms.group_by("mixers", maintain_order=True)}
        if not set(_PLAIN) <= set(ends):
            continue
        better = min(_PLAIN, key=lambda mixers: ends[mixers].mean())
        for mixers in ends.keys() - set(_PLAIN):
            what = f"{depth(layers)}, {_title(optimizer)}: {mixers} against {better}"
            rows.append(_ratio(what, ends[mixers], ends[better]))
    answer = (
        "Test loss of a hybrid over that of the better plain mixer under the same optimiser. Below 1 the hybrid is better."
        + _counted(rows)
    )
    return answered("Does a hybrid beat both?", answer, _findings(sorted(rows, key=lambda row: row.value)))


def _variants(frame: pl.DataFrame) -> pl.DataFrame:
    """Every arm that differs from a plain one in just its features, its final LayerNorm or its data, against that one."""
    rows = []
    plain = {"feature_map": "relu2", "final_layer_norm": True, "data": "fresh"}
    for (mixers, optimizer, layers), arms in frame.group_by(
        "mixers", "optimizer", "layers", maintain_order=True
    ):
        ends = {changes: _ends(own) for changes, own in arms.group_by(*plain, maintain_order=True)}
        base = ends.pop(tuple(plain.values()), None)
        for changes, own in ends.items():
            changed = [key for key, value in zip(plain, changes, strict=True) if value != plain[key]]
            if base is not None and len(changed) == 1:
                what = {
                    "feature_map": f"features {changes[0]}",
                    "final_layer_norm": "no final LayerNorm",
                    "data": "the published pool",
                }[changed[0]]
                rows.append(_ratio(f"{depth(layers)}, {_title(optimizer)}, {mixers}: {what}", own, base))
    answer = (
        "Test loss of an arm over that of the one with fresh sequences, a final LayerNorm and, in linear attention, "
        "squared ReLU features, which differs from it in nothing else. Below 1 the change is for the better."
        + _counted(rows)
    )
    title = "What do other features, no final LayerNorm and the pool change?"
    return answered(title, answer, _findings(rows))


def _optimizers(frame: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for (mixers, layers), arms in _plain(frame).group_by("mixers", "layers", maintain_order=True):
        ends = {name: _ends(arms.filter(optimizer=name)) for name in ("adam", "muon")}
        if all(len(each) for each in ends.values()):
            rows.append(_ratio(f"{depth(layers)}, {mixers}", ends["adam"], ends["muon"]))
    answer = (
        "Test loss with Adam over that with Muon after as many sequences, each at the best rate of its grid. Above 1 Muon "
        "is better, which says nothing of where longer training would end."
    )
    return answered("Does Muon help a decoder?", answer + _counted(rows), _findings(rows))


def _below_published(as_published: pl.DataFrame, matched: pl.DataFrame) -> pl.DataFrame:
    """What the paper's training ends at over what training on equal terms does, for each depth and attention.

    The optimiser is chosen as the learning rate is, by the validation loss.
    """
    rows = []
    theirs = _last(as_published.filter(set="isotropic"))
    for architecture, mixers in zip(("quadratic", "linear"), _PLAIN, strict=True):
        for (layers,), curves in theirs.filter(architecture=architecture).group_by(
            "layers", maintain_order=True
        ):
            arms = _plain(matched).filter(mixers=mixers, layers=layers).partition_by("optimizer")
            if not arms or not learned(curves):
                continue
            best = min(arms, key=lambda arm: _ends(arm, "validation").mean())
            seen = [int(each["sequences_seen"].max()) for each in (best, curves)]  # pyright: ignore[reportArgumentType]
            what = f"{depth(layers)}, {mixers}, {_title(best['optimizer'][0])}"
            before = _curves(curves)[1][:, -1].astype(float)
            rows.append(_ratio(what, before, _ends(best), f"{seen[0]} sequences against {seen[1]} draws"))
    answer = (
        "Test loss after the paper's training over that on equal terms, at the same depth. Above 1 training on equal terms "
        "ends lower. The two differ in optimiser, learning rate and its schedule, and batch; for linear attention in "
        "final LayerNorm, initial values and activation; and in data: every sequence is new here, the paper draws from a "
        "pool of 16000. Intervals are over seeds only; each is judged on test sequences of its own."
    ) + _counted(rows)
    return answered("How far below the paper's training does it end?", answer, _findings(rows))


def _rates(frame: pl.DataFrame) -> pl.DataFrame:
    """The learning rate that each arm chose, and where in its grid that is."""
    rows, inside, at_end = [], 0, 0
    arms = ["layers", "optimizer", "mixers", "feature_map", "data", "final_layer_norm"]
    for (layers, optimizer, mixers, feature_map, data, norm), own in frame.group_by(
        arms, maintain_order=True
    ):
        rates = sorted(own["learning_rate"].unique())
        best = float(own.filter("chosen")["learning_rate"][0])
        if len(rates) > 2:
            inside, at_end = inside + (rates[0] < best < rates[-1]), at_end + (best in (rates[0], rates[-1]))
        what = [depth(layers), _title(optimizer), str(mixers)]
        what += [str(feature_map)] * (feature_map != "relu2") + ["pool"] * (data == "pool")
        what += ["no final LayerNorm"] * (not norm)
        rows.append(finding(", ".join(what), best, note=f"of {', '.join(f'{rate:g}' for rate in rates)}"))
    answer = "The rate of the grid with the least validation loss."
    if at_end:
        answer += (
            f" {at_end} of {inside + at_end} chose an end of their grid, beyond which a better one may lie."
        )
    if inside + at_end < len(rows):
        answer += " A grid of fewer than three rates brackets no optimum."
    return answered("Which learning rates were chosen?", answer, rows)


def _comparable(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Arms that differ in nothing but plain softmax or linear attention, with what they share as a name."""
    found = []
    own = frame.filter(pl.col("mixers").is_in(_PLAIN), pl.col("feature_map") == "relu2")
    keys = ["layers", "optimizer", "data", "final_layer_norm"]
    for (layers, optimizer, data, norm), arms in own.group_by(keys, maintain_order=True):
        if set(arms["mixers"]) == set(_PLAIN):
            source = "fresh sequences" if data == "fresh" else "the published pool"
            name = f"{depth(layers)}, {_title(optimizer)}, {source}"
            found.append((name if norm else f"{name}, no final LayerNorm", arms))
    return found


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Arms with fresh sequences, a final LayerNorm and the paper's features."""
    return frame.filter(
        pl.col("data") == "fresh", pl.col("final_layer_norm"), pl.col("feature_map") == "relu2"
    )


def _last(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("position") == POINTS - 1)


def sequences_needed(frame: pl.DataFrame) -> np.ndarray:
    """Training sequences until the loss has covered `_FRACTION` of its way, a number a seed; none for no rows."""
    return np.empty(0) if frame.is_empty() else samples_to(*_curves(frame), _FRACTION)


def _curves(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The sequences seen at every evaluation, and the losses there, a row a seed."""
    curve = frame.pivot(on="seed", index="sequences_seen", values="loss").sort("sequences_seen")
    return curve["sequences_seen"].to_numpy(), curve.drop("sequences_seen").to_numpy().T


def learned(frame: pl.DataFrame) -> bool:
    """Whether some program of the paper's grid ends below the plateau, from losses at the last point."""
    return _least_end(frame) < _LEARNED


def _least_end(frame: pl.DataFrame) -> float:
    """The least of the programs' mean losses at their ends."""
    last = frame.filter(pl.col("step") == pl.col("step").max().over("architecture", "layers"))
    return last.group_by("architecture", "layers").agg(pl.col("loss").cast(pl.Float64).mean())["loss"].min()  # pyright: ignore[reportReturnType]


def _ends(frame: pl.DataFrame, judged_on: str = "test") -> np.ndarray:
    """The last loss, a number a seed in the order of seeds."""
    last = _last(frame.filter(set=judged_on)).filter(pl.col("step") == pl.col("step").max()).sort("seed")
    return last["loss"].cast(pl.Float64).to_numpy()


class _Ratio(NamedTuple):
    """A ratio of means over seeds, and its 95 % interval."""

    what: str
    value: float
    low: float
    high: float
    note: str


def _ratio(what: str, over: np.ndarray, under: np.ndarray, more: str = "") -> _Ratio:
    ratio, low, high = ratio_of_means(over, under)
    interval = f"95 % bootstrap interval over {len(over)} seeds {low:.3g} to {high:.3g}"
    note = f"{interval}; {over.mean():.4g} over {under.mean():.4g}{more and ', '}{more}"
    return _Ratio(what, ratio, low, high, note)


def _findings(ratios: list[_Ratio]) -> list[Finding]:
    return [finding(ratio.what, ratio.value, note=ratio.note) for ratio in ratios]


def _counted(ratios: list[_Ratio]) -> str:
    above, below = sum(ratio.low > 1 for ratio in ratios), sum(ratio.high < 1 for ratio in ratios)
    return f" Of {len(ratios)} intervals {above} are above 1, {below} below, and {len(ratios) - above - below} hold 1."


def depth(layers: object) -> str:
    """As in "1 layer"."""
    return f"{layers} layer{'s' * (layers != 1)}"


def _title(optimizer: object) -> str:
    return str(optimizer).capitalize()
