"""What the findings of `goel2026` say of known losses."""

import numpy as np
import polars as pl
import pytest
from goel_frames import SEEDS, arm_rows, as_published, on_equal_terms

from innerloop.papers.goel2026 import drawn_published
from innerloop.papers.goel2026.data import POINTS
from innerloop.papers.goel2026.findings import findings
from innerloop.papers.goel2026.matched import Arm


def test_what_has_not_left_the_plateau_has_no_ratio():
    """One layer as before, three layers ten times as slow: a loss of 0.5^(1/2) = 0.93 is 0.93, not 0.9, at the end."""
    frame = as_published().with_columns(
        loss=pl.when(pl.col("layers") == 3).then(pl.col("loss") ** 0.01).otherwise("loss")
    )
    table = drawn_published.speed(frame, False).table
    assert table["ratio"].to_list() == [1.5, None]
    assert "plateau" in drawn_published.speed(frame, False).caption
    found = findings(frame, on_equal_terms()).filter(
        group="Does linear attention converge faster, as published?"
    )
    ends = frame.filter(layers=3, set="isotropic", position=POINTS - 1).filter(
        pl.col("step") == pl.col("step").max().over("architecture")
    )
    least = ends.group_by("architecture").agg(pl.col("loss").mean())["loss"].min()
    assert dict(found.select("what", "measured").iter_rows()) == {
        "1 layer": pytest.approx(1.5),
        "3 layers: loss at the end": pytest.approx(least),
    }
    assert least > 0.9


def test_findings_compare_what_differs_in_attention_alone():
    """Softmax ends at 0.2 and 0.1, linear at 0.5 and 0.4, a hybrid at half of the better; at six layers linear is ahead."""
    arms = [
        (Arm("softmax,linear,linear", "muon"), 0.05, 0.05),
        (Arm("softmax", "muon", layers=6), 0.2, 0.2),
        (Arm("linear", "muon", layers=6), 0.1, 0.1),
    ]
    more = pl.DataFrame([row for arm, end, validation in arms for row in arm_rows(arm, end, validation)])
    found = findings(as_published(), pl.concat([on_equal_terms(), more]))
    groups = {group: own for (group,), own in found.group_by("group", maintain_order=True)}
    measured = {group: dict(own.select("what", "measured").iter_rows()) for group, own in groups.items()}
    assert measured["Does linear attention converge faster, as published?"] == {
        "1 layer": pytest.approx(1.5),
        "3 layers": pytest.approx(1.5),
    }
    # From 1 to its end a curve goes in one step of 50: at 0.5 and 0.4, where linear ends, softmax is sooner.
    assert measured["Which attention is sooner at the loss that both reach?"] == {
        "3 layers, Adam, fresh sequences": pytest.approx((1 - 0.51) / (1 - 0.2), rel=0.03),
        "3 layers, Muon, fresh sequences": pytest.approx((1 - 0.408) / (1 - 0.1), rel=0.03),
        "6 layers, Muon, fresh sequences": pytest.approx((1 - 0.1) / (1 - 0.204), rel=0.03),
    }
    better = measured["Which attention is better on equal terms?"]
    assert better == {
        "3 layers, Adam, fresh sequences": pytest.approx(0.4),
        "3 layers, Muon, fresh sequences": pytest.approx(0.25),
        "6 layers, Muon, fresh sequences": pytest.approx(2.0),
    }
    answer = groups["Which attention is better on equal terms?"]["answer"][0]
    assert "Of 3 intervals 1 are above 1, 2 below, and 0 hold 1." in answer
    assert measured["Does a hybrid beat both?"] == {
        "3 layers, Muon: softmax,linear,linear against softmax": pytest.approx(0.5)
    }
    assert measured["Does Muon help a decoder?"] == {
        "3 layers, softmax": pytest.approx(2.0),
        "3 layers, linear": pytest.approx(1.25),
    }
    # Of the paper's frame, whose seeds differ otherwise, three layers; the optimiser of the least validation loss.
    seeds = np.mean([1 + seed / 1000 for seed in SEEDS]) / 1.01
    assert measured["How far below the paper's training does it end?"] == {
        "3 layers, softmax, Adam": pytest.approx(seeds * 0.5**5 / 0.2),
        "3 layers, linear, Muon": pytest.approx(seeds * 0.5**10 / 0.4),
    }
    below = groups["How far below the paper's training does it end?"]["note"][0]
    assert below.endswith("1600 sequences against 64000 draws")


def test_variants_are_held_against_the_arm_they_differ_from_in_one_thing():
    """Linear ends at 0.4 with Muon, 0.01 without LayerNorm: exp features halve it, the pool doubles it; with both changes
    there is nothing to hold it against, nor for a hybrid by head that has no plain twin."""
    arms = [
        (Arm("linear", "muon", "exp"), 0.2),
        (Arm("linear", "muon", data="pool"), 0.8),
        (Arm("linear", "muon", "exp", data="pool"), 0.1),
        (Arm("softmax", "adam", final_layer_norm=False), 0.2),
        (Arm("softmax:2+linear:2", "muon", final_layer_norm=False), 0.3),
    ]
    more = pl.DataFrame([row for arm, end in arms for row in arm_rows(arm, end, end)])
    found = findings(as_published(), pl.concat([on_equal_terms(), more]))
    own = found.filter(group="What do other features, no final LayerNorm and the pool change?")
    assert dict(own.select("what", "measured").iter_rows()) == {
        "3 layers, Muon, linear: no final LayerNorm": pytest.approx(0.025),
        "3 layers, Muon, linear: features exp": pytest.approx(0.5),
        "3 layers, Muon, linear: the published pool": pytest.approx(2.0),
        "3 layers, Adam, softmax: no final LayerNorm": pytest.approx(1.0),
    }
    assert "Of 4 intervals 1 are above 1, 2 below, and 1 hold 1." in own["answer"][0]


def test_a_learning_rate_at_the_end_of_three_is_said_to_be_there():
    """Of two rates each is an end, which says nothing."""
    both = [arm_rows(Arm(mixers, "muon"), 0.1, 0.1) for mixers in ("softmax", "linear")]
    added = [
        row | {"learning_rate": rate, "chosen": False}
        for rows, rate in zip(both, (0.1, 0.005), strict=True)
        for row in rows
        if row["learning_rate"] == 0.001
    ]
    two = pl.DataFrame(both[0] + both[1])
    for frame, said in [
        (two, "A grid of fewer than three rates brackets no optimum."),
        (pl.concat([two, pl.DataFrame(added)]), "1 of 2 chose an end of their grid"),
    ]:
        found = findings(as_published(), frame).filter(group="Which learning rates were chosen?")
        assert found["measured"].to_list() == [0.01, 0.01] and said in found["answer"][0]
    assert found["note"].to_list() == ["of 0.001, 0.01, 0.1", "of 0.001, 0.005, 0.01"]
