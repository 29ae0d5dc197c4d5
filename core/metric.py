"""Metrics, and the quality of a model on a dataset.

A metric that is a mean over items (top-1) keeps the score of each item, so two models can be
compared in pairs: the standard error of a difference is far below that of either value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .batches import fixed_rows
from .callables import import_callable, is_callable_spec
from .data import Array
from .dataset import Dataset
from .errors import DataError, OptionError, TrimtabError, unknown
from .metrics.fidelity import FIDELITY
from .metrics.metric import Metric, Pooled, Quality, Score
from .model import Model
from .ort.session import Outputs, SessionConfig
from .progress import Progress, Silent
from .runner import Runner, run_here
from .target import usable_cpus

__all__ = [
    "METRICS",
    "Metric",
    "Quality",
    "bootstrap_values",
    "evaluate",
    "find_metric",
    "fitted",
    "labels_are_classes",
]

#: Items whose outputs tell of what kind each output is.
FITTING = 32


def _first(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _top(k: int) -> Score:
    def score(outputs: Mapping[str, Array], labels: Array) -> Array:
        logits = _first(outputs)  # (N, classes, ...)
        _check_labels(labels, logits)
        if k == 1:
            return _item_mean(logits.argmax(1) == labels)
        best = np.argpartition(-logits, min(k, logits.shape[1]) - 1, axis=1)[:, :k]
        return _item_mean((best == labels[:, None]).any(1))

    return score


def _item_mean(hits: Array) -> Array:
    return np.asarray(hits.reshape(len(hits), -1).mean(1, dtype=np.float64))


def _check_labels(labels: Array, logits: Array) -> None:
    classes = logits.shape[1] if logits.ndim > 1 else 0
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype}, a classification metric needs integers",
            where="labels",
            hint="Name another metric with --metric",
        )
    if labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise DataError(
            f"labels of shape {list(labels.shape)} do not fit outputs {list(logits.shape)}",
            where="labels",
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()}, the model has {classes} classes",
            where="labels",
            hint="Labels start at 0; check that data and model belong together",
        )


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _agreement(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> Array:
    return _item_mean(_first(outputs).argmax(1) == _first(reference).argmax(1))


def _cosine(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> Array:
    a, b = _rows(_first(outputs)), _rows(_first(reference))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) / np.maximum(norms, 1e-12))


def _neg_mse(outputs: Mapping[str, Array], target: Any) -> Array:
    wanted = _first(target) if isinstance(target, Mapping) else target
    return np.asarray(-((_rows(_first(outputs)) - _rows(wanted)) ** 2).mean(1))


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        FIDELITY,
        Metric("top1", _top(1), itemwise=True),
        Metric("top5", _top(5), itemwise=True),
        Metric("neg_mse", _neg_mse, itemwise=True),
        Metric("agreement", _agreement, itemwise=True, wants="reference"),
        Metric("cosine", _cosine, itemwise=True, wants="reference"),
    )
}


def find_metric(name: str | Metric | None, data: Dataset) -> Metric:
    """Return the metric of that name; by default top-1 with labels, else fidelity to float.

    Args:
        name: a known name, `module:callable`, a metric, or None. The callable takes the outputs by
            name and the labels, both for the whole dataset, and returns one number, or one score
            per item (N,); higher is better.
        data: dataset that it will be computed on.

    Raises:
        OptionError: there is no such metric, or it needs labels and the data has none.
    """
    if isinstance(name, Metric):
        return name
    if name is None:
        return METRICS["top1"] if data.has_labels else FIDELITY
    if is_callable_spec(name):
        return Metric(name, import_callable(name), itemwise=False)
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    metric = METRICS[name]
    if metric.wants == "labels" and not data.has_labels:
        raise OptionError(
            f"metric {metric.name!r} needs labels, and {data.spec} has none",
            hint="Add an array `labels`, or use fidelity, which compares with float",
        )
    return metric


def labels_are_classes(model: Model, data: Dataset) -> bool:
    """Return whether labels are class numbers, and the first output has scores of classes."""
    batch = next(iter(data.take(1)), None)
    if batch is None or batch.labels is None:
        return False
    shape = model.outputs[0].shape
    numbers = batch.labels.dtype.kind in "iu" and batch.labels.ndim == 1
    return numbers and shape is not None and len(shape) == 2


def evaluate(
    model: Model,
    data: Dataset,
    metric: str | Metric | None = None,
    *,
    reference: Model | None = None,
    config: SessionConfig | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> Quality:
    """Evaluate the model's quality on `data`.

    Args:
        model: model to evaluate.
        data: dataset, with labels unless the metric compares with `reference`.
        metric: see `find_metric`.
        reference: the float original, for metrics that compare with it.
        config: session options.
        progress: display of progress.
        runner: runs models; in this process where None.

    Raises:
        DataError: the data has NaN, labels out of range, or shapes that do not fit.
        OptionError: the metric is unknown, or its labels or reference are missing.
    """
    chosen = find_metric(metric, data)
    data = data.bind(model)
    if chosen.wants == "reference" and reference is None:
        raise OptionError(
            f"metric {chosen.name!r} compares with the float original",
            hint="Name it with --reference",
        )
    fixed = fixed_rows(model)
    if fixed is not None and not data.source.batched:
        data = data.sized(fixed)
    run_all, config = runner or run_here, config or SessionConfig()
    other = reference if chosen.wants == "reference" else None
    if other is not None:
        chosen = fitted(chosen, other, data, config, run_all)
    truths = (found for _, found in run_all(other, data, config)) if other else None
    scores: list[Any] = []
    kept: list[tuple[Outputs, Array | None]] = []
    rows = 0
    found = run_all(model, data, config)
    label = f"evaluating {model.name}"
    for batch, outputs in (progress or Silent()).track(found, label, data.batches):
        rows += batch.size
        truth: Any = next(truths) if truths else batch.labels
        if chosen.itemwise:
            scores.append(_score(chosen, outputs, truth))
        else:
            kept.append((outputs, batch.labels))
    if chosen.finish is not None:
        return _quality(chosen.name, chosen.finish(scores), rows)
    if chosen.itemwise:
        items = np.concatenate([np.asarray(score, np.float64) for score in scores])
        return _quality(chosen.name, items, rows)
    return _quality(chosen.name, _whole(chosen, kept), rows)


def fitted(
    metric: Metric,
    reference: Model,
    data: Dataset,
    config: SessionConfig | None = None,
    runner: Runner | None = None,
) -> Metric:
    """Return the metric itself for one that depends on what the reference's outputs are.

    Where many candidates are compared the metric is fitted once; `evaluate` fits what is not.
    """
    if metric.fit is None:
        return metric
    found = (runner or run_here)(reference, data.take(FITTING), config or SessionConfig())
    return metric.fit(reference, [outputs for _, outputs in found])


def _whole(metric: Metric, kept: list[tuple[Outputs, Array | None]]) -> Any:
    """Score all data at once, for metrics that are not a mean over items (Spearman, mAP)."""
    names = list(kept[0][0])
    outputs = {name: np.concatenate([o[name] for o, _ in kept]) for name in names}
    labels = None if kept[0][1] is None else np.concatenate([y for _, y in kept if y is not None])
    return _score(metric, outputs, labels)


def _score(metric: Metric, outputs: Mapping[str, Array], truth: Any) -> Any:
    try:
        return metric.score(outputs, truth)
    except TrimtabError:
        raise
    except Exception as error:
        raise OptionError(
            f"the metric failed ({type(error).__name__}: {error})", where=metric.name
        ) from error


def bootstrap_values(
    model: Model,
    data: Dataset,
    metric: Metric,
    resamples: int,
    seed: int,
    runner: Runner | None = None,
) -> Array:
    """Evaluate a metric that is not a mean over items on bootstrap resamples of the batches.

    The same seed resamples the same batches of equal data, so values of two models are pairs
    (Efron's bootstrap).

    Returns:
        (1 + resamples,): value for all batches, then for each resample.
    """
    data = data.bind(model)
    data = data if data.source.batched else data.sized(8)
    found = (runner or run_here)(model, data, SessionConfig(threads=usable_cpus()))
    kept = [(outputs, batch.labels) for batch, outputs in found]
    rng = np.random.default_rng(seed)
    draws = [np.arange(len(kept)), *rng.integers(0, len(kept), (resamples, len(kept)))]
    return np.array([float(np.mean(_whole(metric, [kept[i] for i in draw]))) for draw in draws])


def _quality(name: str, scores: Any, count: int) -> Quality:
    if isinstance(scores, Pooled):
        return Quality(name, scores.value, scores.items, count, scores.outputs)
    array = np.asarray(scores, np.float64)
    if not np.isfinite(array).all():
        raise OptionError(
            "the metric is NaN or infinite", where=name, hint="Check the model's outputs for NaN"
        )
    items = array if array.ndim == 1 else None
    return Quality(name, float(array.mean()), items, count)
