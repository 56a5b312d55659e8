"""What is shown of the inside of known decoders in `goel2026`: attention maps and probes."""

import itertools

import polars as pl

from innerloop.papers.goel2026 import drawn_inside
from innerloop.papers.goel2026.data import POINTS
from innerloop.papers.goel2026.matched import Arm
from innerloop.papers.goel2026.study import BY_HEAD, BY_LAYER


def inside(arm: Arm, validation: float, **columns) -> pl.DataFrame:
    about = {**vars(arm), "layers": arm.layers or 3, "validation_loss": validation}
    frame = pl.DataFrame(columns)
    return frame.select(*(pl.lit(value).alias(name) for name, value in about.items()), pl.all())


def attention(arm: Arm, validation: float, kinds: tuple[str, ...], first: float) -> pl.DataFrame:
    """Every token has the weight `first` on the first, and shares the rest among the others and itself."""
    rows = [
        (
            layer,
            kind,
            token,
            attended,
            1.0 if token == 0 else first if attended == 0 else (1 - first) / token,
            0.01,
        )
        for layer, kind in itertools.product([1, 2], kinds)
        for token in range(2 * POINTS)
        for attended in range(token + 1)
    ]
    names = ["layer", "kind", "token", "attended", "weight", "standard_error"]
    return inside(arm, validation, **dict(zip(names, zip(*rows, strict=True), strict=True)))


def test_attention_is_of_the_arm_that_is_best_on_validation_and_kinds_stand_apart():
    frame = pl.concat(
        [
            attention(Arm("softmax"), 0.2, ("softmax",), 0.5),
            attention(Arm("softmax", "muon"), 0.3, ("softmax",), 0.9),
            attention(Arm("linear", feature_map="elu1"), 0.1, ("linear",), 0.9),
            attention(Arm(BY_HEAD), 0.2, ("softmax", "linear"), 0.4),
        ]
    )
    drawn = drawn_inside.attention(frame, False)
    methods = ["softmax", "hybrid by head, softmax heads", "hybrid by head, linear heads"]
    assert drawn.table["method"].unique(maintain_order=True).to_list() == methods
    softmax = drawn.table.filter(method="softmax", layer=2, token=18, attended=0).row(0, named=True)
    assert (softmax["weight"], softmax["token_name"], softmax["attended_name"]) == (0.5, "x9", "x0")
    assert drawn.shown is not None and len(drawn.shown) == 3 * 2 * 3
    first = drawn.shown.filter(method="hybrid by head, linear heads", layer=1).row(0, named=True)
    assert (first["token"], first["attended"], first["weight"]) == ("x9", "x0", 0.4)
    assert drawn.picture is not None


def test_probes_name_the_nearest_number_of_steps():
    targets = ["gradient descent, 1 step", "gradient descent, 4 steps", "least squares", "label"]
    values = {(1, 0): 0.3, (1, 1): 0.5, (2, 0): 0.4, (2, 1): 0.2}  # by layer and target
    rows = [
        (
            examples,
            model,
            layer,
            target,
            values.get((layer, place), 0.1) if model == "trained" else 0.9,
            0.01,
            2.0,
            0.1,
        )
        for examples, model, layer, (place, target) in itertools.product(
            [3, 9], ["trained", "untrained"], [1, 2], enumerate(targets)
        )
    ]
    names = ["examples", "model", "layer", "target", "probe", "probe_se", "read_out", "read_out_se"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    frame = pl.concat([inside(Arm(BY_LAYER), 0.2, **columns), inside(Arm(BY_LAYER, "muon"), 0.1, **columns)])
    drawn = drawn_inside.probes(frame, False)
    assert len(drawn.table) == len(rows) and set(drawn.table["method"]) == {"hybrid by layer"}
    assert drawn.shown is not None
    assert drawn.shown.select("examples", "layer", "nearest_steps", "distance", "least_squares").rows() == [
        (3, 1, 1, 0.3, 0.1),
        (3, 2, 4, 0.2, 0.1),
        (9, 1, 1, 0.3, 0.1),
        (9, 2, 4, 0.2, 0.1),
    ]
    assert drawn.picture is not None
    panels = [axes.get_title(loc="left") for axes in drawn.picture[0].axes]
    assert panels == ["hybrid by layer\n3 examples", "hybrid by layer\n9 examples"]
