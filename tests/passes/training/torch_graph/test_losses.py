"""Losses: errors are shares of what the teacher's outputs are over several batches."""

from __future__ import annotations

import pytest
import torch

from trimtab.core.metrics.kinds import OutputKind
from trimtab.passes.training.torch_graph.losses import Loss

DETECTIONS = {"y": OutputKind("detections", axis=2, scores=4)}


def loss_of(batches: list[torch.Tensor], kinds: dict[str, OutputKind]) -> Loss:
    loss = Loss({"mse": 1.0}, 1.0, [("x", "y")], [])
    loss.measure([{"y": b} for b in batches], kinds)
    return loss


def value(loss: Loss, mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(loss({"x": mine}, {"y": theirs}, None))


@pytest.mark.parametrize("factor", [0.0, 1e-3])
def test_a_silent_batch_counts_as_little_as_its_error(factor: float) -> None:
    loud, silent = torch.full((2, 8), 3.0), torch.full((2, 8), 3.0 * factor)
    loss = loss_of([loud, silent], {})
    mean = (9.0 + 9.0 * factor**2) / 2
    assert value(loss, silent + 0.3, silent) == pytest.approx(0.09 / mean, rel=1e-4)
    assert value(loss, loud + 0.3, loud) == pytest.approx(0.09 / mean, rel=1e-4)


def test_scores_count_as_much_as_boxes_in_pixels() -> None:
    torch.manual_seed(0)
    boxes, scores = 100 * torch.rand(1, 20, 4), torch.rand(1, 20, 3)
    theirs = torch.cat([boxes, scores], 2)
    loss = loss_of([theirs], DETECTIONS)
    none = torch.cat([boxes, torch.zeros_like(scores)], 2)  # no object is found
    assert value(loss, none, theirs) == pytest.approx(0.5, rel=1e-5)
    centred = torch.cat([boxes.mean((0, 1), keepdim=True).expand_as(boxes), scores], 2)
    assert value(loss, centred, theirs) == pytest.approx(0.5, rel=1e-5)
    unsure = theirs.clone()
    unsure[0, 3, 4:] = 0.0  # the teacher sees nothing there, so its box may be anything
    moved = unsure.clone()
    moved[0, 3, :4] += 50
    assert value(loss, moved, unsure) == 0.0


def test_without_a_measurement_errors_are_shares_of_the_batch() -> None:
    loss = Loss({"mse": 1.0}, 1.0, [("x", "y")], [])
    assert value(loss, torch.ones(2, 4), 2 * torch.ones(2, 4)) == pytest.approx(0.25)
