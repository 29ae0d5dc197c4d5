"""Loss: a weighted sum of terms between a student, its teacher and the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trimtab.core.data import Array
from trimtab.core.errors import DataError, ModelError
from trimtab.core.metrics.kinds import OutputKind
from trimtab.core.text import shape_text

Values = Mapping[str, Tensor]
NamePairs = Sequence[tuple[str, str]]


class Loss(nn.Module):
    """Weighted sum of terms; its own parameters project features of unequal width.

    Names of outputs and of features are pairs, the student's and the teacher's.
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        temperature: float,
        outputs: NamePairs,
        features: NamePairs,
    ) -> None:
        super().__init__()
        self.terms, self.temperature = dict(terms), temperature
        self.outputs, self.features = tuple(outputs), tuple(features)
        self.projections = nn.ModuleList()
        self.sizes: dict[str, Sizes] = {}

    def measure(self, teacher: Sequence[Values], kinds: Mapping[str, OutputKind]) -> None:
        """Measure how large the teacher's outputs and features are, over some batches.

        Errors are shares of that. As a share of the batch at hand, a silent row or a picture
        without an object would count more than all others.

        Args:
            teacher: outputs and features for each batch.
            kinds: what the teacher's outputs are, by name.
        """
        if not teacher or self.terms.keys() <= {"ce"}:
            return
        for name in {theirs for _, theirs in (*self.outputs, *self.features)}:
            arrays = [values[name].float() for values in teacher]
            if arrays[0].is_floating_point():
                self.sizes[name] = Sizes.of(arrays, kinds.get(name))

    def prepare(self, student: Values, teacher: Values) -> None:
        """Check shapes, and add a projection for each feature whose widths differ.

        Raises:
            ModelError: shapes that cannot be compared.
        """
        if self.terms.keys() <= {"ce"}:
            return
        for mine, theirs in self.outputs:
            if student[mine].shape != teacher[theirs].shape:
                raise ModelError(
                    f"output {mine!r} is "
                    f"{shape_text(student[mine].shape)}, the teacher's {theirs!r} "
                    f"is {shape_text(teacher[theirs].shape)}",
                    where="teacher",
                    hint="Give the model that this one was made from",
                )
        for mine, theirs in self.features:
            made = _projection(mine, student[mine], teacher[theirs])
            self.projections.append(made.to(student[mine].device))

    def forward(self, student: Values, teacher: Values, labels: Array | None) -> Tensor:
        """Compute the sum, averaged over the rows.

        Raises:
            DataError: labels are missing or out of range.
        """
        total = torch.zeros((), device=next(iter(student.values())).device)
        for term, weight in self.terms.items():
            if term == "ce":
                value = _cross_entropy(student[self.outputs[0][0]], labels)
            elif term == "features":
                value = self._features(student, teacher)
            else:
                parts = [
                    self._compare(term, student[mine].float(), teacher[theirs].float(), theirs)
                    for mine, theirs in self.outputs
                    if student[mine].is_floating_point()
                ]
                value = torch.stack(parts).mean()
            total = total + weight * value
        return total

    def _compare(self, term: str, mine: Tensor, theirs: Tensor, name: str) -> Tensor:
        if term == "kd":
            return kl_divergence(mine, theirs, self.temperature)
        if term == "cosine":
            return 1 - functional.cosine_similarity(mine, theirs, dim=-1).mean()
        return self.sizes.get(name, OWN_SIZE).relative_square(mine, theirs)

    def _features(self, student: Values, teacher: Values) -> Tensor:
        parts = [
            self.sizes.get(theirs, OWN_SIZE).relative_square(
                project(student[mine].float()), teacher[theirs].float()
            )
            for (mine, theirs), project in zip(self.features, self.projections, strict=True)
        ]
        return torch.stack(parts).mean()


def kl_divergence(mine: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Compute T^2 KL(softmax(t / T) || softmax(s / T)), mean over rows.

    Hinton et al., 2015, section 2. The square keeps its gradient as large as that of a
    cross-entropy.
    """
    logs = functional.log_softmax(mine / temperature, -1).flatten(0, -2)
    wanted = functional.log_softmax(theirs / temperature, -1).flatten(0, -2)
    made = functional.kl_div(logs, wanted, reduction="batchmean", log_target=True)
    return made * temperature**2


@dataclass(frozen=True)
class Sizes:
    """Mean square of a tensor over some batches, by which errors are divided.

    Attributes:
        scores: mean square; of detections that of their scores; None for that of each batch.
        boxes: of detections, mean squares of the boxes, and of what stands behind the scores,
            around their centres, weighed like errors.
        kind: what the tensor is; None where nobody knows.
    """

    scores: Tensor | None = None
    boxes: tuple[Tensor, ...] = ()
    kind: OutputKind | None = None

    @classmethod
    def of(cls, arrays: Sequence[Tensor], kind: OutputKind | None) -> Sizes:
        """Measure a tensor of several batches."""
        if kind is None or kind.kind != "detections":
            return cls(_mean([x.square() for x in arrays]))
        parts = [_parts(x, kind) for x in arrays]
        others = [axis for axis in range(arrays[0].ndim) if axis != kind.axis]
        spreads = []
        for number in range(len(parts[0][1])):
            each = [(weighed[number], _weight(scores, kind)) for scores, weighed in parts]
            centre = torch.stack([x.mean(others, keepdim=True) for x, _ in each]).mean(0)
            spreads.append(_mean([(x - centre).square() * weight for x, weight in each]))
        return cls(_mean([scores.square() for scores, _ in parts]), tuple(spreads), kind)

    def relative_square(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Compute |s - t|^2 / |t|^2, comparable between tensors so that terms can be weighed.

        Of detections it is the mean of that of the scores and that of the boxes. These are in
        pixels and scores below 1: of both as one tensor no gradient would reach the scores. A box
        counts by how sure the teacher is of its object.
        """
        if not self.boxes or self.kind is None:
            size = theirs.square().mean() if self.scores is None else self.scores
            return (mine - theirs).square().mean() / size.clamp_min(1e-12)
        scores, weighed = _parts(mine, self.kind)
        their_scores, their_weighed = _parts(theirs, self.kind)
        weight = _weight(their_scores, self.kind)
        errors = [
            ((x - y).square() * weight).mean() / size.clamp_min(1e-12)
            for x, y, size in zip(weighed, their_weighed, self.boxes, strict=True)
        ]
        of_scores = Sizes(self.scores).relative_square(scores, their_scores)
        return torch.stack([of_scores, *errors]).mean()


#: Errors as shares of the batch at hand.
OWN_SIZE = Sizes()


def _parts(array: Tensor, kind: OutputKind) -> tuple[Tensor, list[Tensor]]:
    """Return the scores; and the boxes, and what else each has, whose errors count by them."""
    ends = [kind.scores, kind.end or array.shape[kind.axis]]
    boxes, scores, others = array.tensor_split(ends, kind.axis)
    return scores, [boxes, others] if others.numel() and not kind.labels else [boxes]


def _weight(scores: Tensor, kind: OutputKind) -> Tensor:
    return scores.amax(kind.axis, keepdim=True)


def _mean(arrays: Sequence[Tensor]) -> Tensor:
    """Return the mean of all elements of several tensors."""
    total = torch.stack([x.sum() for x in arrays]).sum()
    return total / max(sum(x.numel() for x in arrays), 1)


def _cross_entropy(logits: Tensor, labels: Array | None) -> Tensor:
    if labels is None:
        raise DataError(
            "the loss term ce needs labels, and the data have none",
            where="data",
            hint="Add `labels`, or learn from the teacher alone: --loss kd",
        )
    wanted = torch.as_tensor(labels, device=logits.device).long()
    classes = logits.shape[-1]
    low, high = (int(end) for end in wanted.aminmax()) if wanted.numel() else (0, 0)
    if wanted.ndim != 1 or not 0 <= low <= high < classes:
        raise DataError(
            f"labels run from {low} to {high} in {wanted.ndim} axes, "
            f"and the model has {classes} classes",
            where="labels",
            hint="Labels are class numbers from 0 on, one an item",
        )
    return functional.cross_entropy(logits.float(), wanted)


def _projection(name: str, mine: Tensor, theirs: Tensor) -> nn.Module:
    """Return the identity for equal shapes, else a learned map of channels.

    Romero et al., "FitNets", 2015.
    """
    if mine.shape == theirs.shape:
        return nn.Identity()
    axis = 1 if mine.ndim == 4 else mine.ndim - 1
    rest, other = (x.shape[:axis] + x.shape[axis + 1 :] for x in (mine, theirs))
    if mine.ndim != theirs.ndim or rest != other:
        raise ModelError(
            f"feature {name!r} is {shape_text(mine.shape)}, the teacher's is "
            f"{shape_text(theirs.shape)}",
            where="features",
            hint="Only the number of channels may differ; name tensors of the same size",
        )
    if mine.ndim == 4:
        return nn.Conv2d(mine.shape[1], theirs.shape[1], 1)
    return nn.Linear(mine.shape[-1], theirs.shape[-1])
