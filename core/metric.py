"""Metrics, and the quality of a model on a dataset.

A metric that is a mean over items (top-1) keeps the score of each item, so two models can be
compared in pairs: the standard error of a difference is far below that of either value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .batches import fitting, fixed_rows
from .callables import import_attribute, is_callable_spec
from .data import Array
from .dataset import Dataset
from .errors import DataError, OptionError, TrimtabError, unknown
from .metrics import average_precision, classification, sequences, signals
from .metrics.fidelity import FIDELITY
from .metrics.metric import Metric, MetricDrop, OutputQuality, Pooled, Quality, values_text
from .metrics.usual_names import unknown_metric
from .model import Model
from .ort.session import SessionConfig
from .progress import Progress, Silent
from .runner import Runner, run_here
from .target import usable_cpus
from .timings import stage

__all__ = [
    "METRICS",
    "Metric",
    "MetricDrop",
    "Pooled",
    "Quality",
    "bootstrap_values",
    "evaluate",
    "find_limited",
    "find_metric",
    "fitted",
    "joint_loss",
    "labels_are_classes",
    "values_text",
]

#: Items whose outputs tell of what kind each output is.
FITTING = 32


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        FIDELITY,
        *classification.METRICS,
        *average_precision.METRICS,
        *sequences.METRICS,
        *signals.METRICS,
    )
}


def find_metric(name: str | Metric | None, data: Dataset) -> Metric:
    """Return the metric of that name; by default top-1 with labels, else fidelity to float.

    Args:
        name: a known name, with options behind a colon (`map:head=yolox`, `top1:output=logits`);
            `module:callable` or `module:metric`; a metric; or None. The callable takes the outputs
            by name and the labels, both for the whole dataset, and returns one number, or one score
            per item (N,); higher is better. Arrays whose items differ in shape come as lists. A
            `Metric` there can be called batch by batch, or pool what it has seen.
        data: dataset that it will be computed on.

    Raises:
        OptionError: there is no such metric or option, or it needs labels and the data has none.
    """
    if isinstance(name, Metric):
        return name
    if name is None:
        return METRICS["top1"] if data.has_labels else FIDELITY
    known, _, options = name.partition(":")
    if "=" in options or known in METRICS:
        metric = _with_options(known, options)
    elif is_callable_spec(name):
        found = import_attribute(name)
        own = isinstance(found, Metric)
        metric = replace(found, spec=name) if own else Metric(name, found, itemwise=False)
    else:
        raise unknown_metric(name, METRICS)
    if metric.wants == "labels" and metric.name in METRICS and not data.has_labels:
        raise OptionError(
            f"metric {metric.name!r} needs labels, and {data.spec} has none",
            hint="Add an array `labels`, or use fidelity, which compares with float",
        )
    return metric


def find_limited(
    max_drop: float | Mapping[str, float], metric: str | Metric | None, data: Dataset
) -> tuple[Metric, float]:
    """Return the metric that a limit is for, and how much it may lose.

    Args:
        max_drop: largest loss of the metric, or largest losses by metric: the first of them is
            returned, with the others beside it.
        metric: see `find_metric`; None where `max_drop` names metrics, or one of these.
        data: dataset that it will be computed on.

    Raises:
        OptionError: see `find_metric`; or another metric than those with limits is asked for.
    """
    if not isinstance(max_drop, Mapping):
        return find_metric(metric, data), max_drop
    names = list(max_drop)
    if not names or (metric is not None and metric not in names):
        raise OptionError(
            f"limits are given of {', '.join(names) or 'nothing'}, not of {metric}",
            where="max_drop",
            hint="Give one number, or name the metric among the limits",
        )
    first, *others = (replace(find_metric(n, data), limit=max_drop[n]) for n in names)
    return replace(first, others=tuple(others)), max_drop[names[0]]


def joint_loss(mine: Quality, base: Quality, limit: float) -> float:
    """Return the loss of the metric that is nearest to its limit, in units of the first one."""
    return max(loss.in_units_of(limit) for loss in mine.losses_from(base, limit))


def _with_options(name: str, text: str) -> Metric:
    """Return the metric with its options, of which `output` restricts any metric to one output."""
    if name not in METRICS:
        raise unknown_metric(name, METRICS)
    pairs = [part.partition("=") for part in text.split(",") if part]
    options = {key.strip(): value.strip() for key, _, value in pairs}
    output = options.pop("output", None)
    metric = METRICS[name]
    if options:
        known = {"head", "alphabet"} if metric.configure is not None else set()
        for key in options.keys() - known:
            raise unknown("option", key, ["output", *sorted(known)], where=f"metric {name}")
        assert metric.configure is not None
        metric = metric.configure(options)
    if output is not None:
        metric = of_output(metric, output)
    return replace(metric, spec=f"{name}:{text}") if text else metric


def of_output(metric: Metric, name: str) -> Metric:
    """Return the metric of one output alone."""

    def only(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if name not in outputs:
            raise unknown("output", name, outputs, where=f"metric {metric.name}")
        return {name: outputs[name]}

    def score(outputs: Mapping[str, Array], truth: Any) -> Any:
        return metric.score(only(outputs), only(truth) if isinstance(truth, Mapping) else truth)

    def fit(model: Model, found: Sequence[Mapping[str, Array]]) -> Metric:
        assert metric.fit is not None
        return of_output(metric.fit(model, [only(outputs) for outputs in found]), name)

    return replace(metric, score=score, fit=fit if metric.fit is not None else None)


def labels_are_classes(model: Model, data: Dataset) -> bool:
    """Return whether labels are class numbers, and the first output has scores of classes."""
    batch = next(iter(data.take(1)), None)
    if batch is None or batch.labels is None:
        return False
    shape = model.outputs[0].shape
    numbers = batch.labels.dtype.kind in "iu" and batch.labels.ndim == 1
    return numbers and shape is not None and len(shape) == 2


def evaluate(
    model: Model | str | Path,
    data: Dataset | str | Path | Mapping[str, Any],
    metric: str | Metric | None = None,
    *,
    reference: Model | str | Path | None = None,
    config: SessionConfig | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> Quality:
    """Evaluate the model's quality on `data`.

    Args:
        model: model to evaluate, or its file.
        data: dataset, or a path or arrays by input name, `labels` among them; it has labels unless
            the metric compares with `reference`.
        metric: see `find_metric`.
        reference: the float original, for metrics that compare with it.
        config: session options.
        progress: display of progress.
        runner: runs models; in this process where None.

    Raises:
        DataError: the data cannot be opened, has NaN, labels out of range, or shapes that do not
            fit.
        OptionError: the metric is unknown, or its labels or reference are missing.
    """
    model, data = Model.of(model), Dataset.of(data)
    reference = None if reference is None else Model.of(reference)
    chosen = find_metric(metric, data)
    found = _evaluated(model, data, chosen, reference, config, progress, runner)
    others = tuple(
        _evaluated(model, data, other, reference, config, progress, runner)
        for other in chosen.others
    )
    return replace(found, others=others)


@stage("evaluating")
def _evaluated(  # noqa: PLR0917 - arguments of `evaluate`, in its order
    model: Model,
    data: Dataset,
    chosen: Metric,
    reference: Model | None,
    config: SessionConfig | None,
    progress: Progress | None,
    runner: Runner | None,
) -> Quality:
    """Evaluate one metric, without those beside it."""
    data = _taken_by(model, data)
    run_all, config = runner or run_here, config or SessionConfig()
    other = _compared_with(chosen, reference, data)
    chosen = fitted(chosen, reference or model, data, config, run_all)
    truths = (found for _, found in run_all(other, data, config)) if other else None
    scores: list[Any] = []
    rows = 0
    found = run_all(model, data, config)
    label = f"evaluating {model.name}"
    for batch, outputs in (progress or Silent()).track(found, label, data.batches):
        rows += batch.size
        truth: Any = next(truths) if truths else batch.labels
        scores.append(_score(chosen, outputs, truth) if chosen.by_batch else (outputs, truth))
    return _quality(chosen, _together(chosen, scores), rows)


def _compared_with(metric: Metric, reference: Model | None, data: Dataset) -> Model | None:
    """Return the model whose outputs are the truth, None where labels are.

    Raises:
        OptionError: there is neither.
    """
    if metric.wants == "labels" or (metric.wants == "either" and data.has_labels):
        return None
    if reference is None:
        raise OptionError(
            f"metric {metric.name!r} compares with the float original",
            hint="Name it with --reference",
        )
    return reference


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
    if metric.others:
        others = (fitted(other, reference, data, config, runner) for other in metric.others)
        alone = fitted(replace(metric, others=()), reference, data, config, runner)
        return replace(alone, others=tuple(others))
    if metric.fit is None:
        return metric
    few = (data if data.stream is not None else _taken_by(reference, data)).take(FITTING)
    found = (runner or run_here)(reference, few, config or SessionConfig())
    made = metric.fit(reference, [outputs for _, outputs in found])
    return replace(made, spec=metric.spec, limit=metric.limit)


def _taken_by(model: Model, data: Dataset) -> Dataset:
    """Return the data checked against a model, in batches that it takes.

    Raises:
        DataError: the data do not fit, or are fewer rows than the model's fixed batch.
    """
    data, fixed = data.bind(model), fixed_rows(model)
    if fixed is not None and not data.source.batched and len(data) < fixed:
        raise DataError(
            f"has {len(data)} rows, and {model.name} takes {fixed} at once",
            where=data.spec,
            hint="Give more rows",
        )
    return fitting(model, data, data.batch)


def _together(metric: Metric, scores: Sequence[Any]) -> Any:
    """Return the value over all batches: pooled, scores of all items, or that of all data."""
    if metric.finish is not None:
        return metric.finish(scores)
    if metric.itemwise:
        return np.concatenate([np.asarray(score, np.float64) for score in scores])
    names = list(scores[0][0])
    outputs = {name: _glued([outputs[name] for outputs, _ in scores]) for name in names}
    labels = [truth for _, truth in scores]
    return _score(metric, outputs, None if labels[0] is None else _glued(labels))


def _glued(arrays: Sequence[Array]) -> Any:
    """Join batches; those whose items differ in shape (detections, lines) become a list of items.

    Where batches hold one item each, or no batch axis, a list of the arrays as they are.
    """
    if len({array.shape[1:] for array in arrays}) == 1 and all(array.ndim for array in arrays):
        return np.concatenate(arrays)
    one_each = any(array.ndim == 0 or len(array) == 0 for array in arrays)
    return list(arrays) if one_each else [item for array in arrays for item in array]


def _score(metric: Metric, outputs: Mapping[str, Any], truth: Any) -> Any:
    try:
        return metric.score(outputs, truth)
    except TrimtabError:
        raise
    except Exception as error:
        given = ", ".join(f"{name}: {_form(array)}" for name, array in outputs.items())
        raise OptionError(
            f"the metric failed ({type(error).__name__}: {error}); it was called with outputs "
            f"{{{given}}} and {_form(truth)} as labels",
            where=metric.name,
            hint="It takes (outputs by name, labels) and returns a number or one score an item",
        ) from error


def _form(array: Any) -> str:
    if isinstance(array, Mapping):
        return "{" + ", ".join(f"{name}: {_form(value)}" for name, value in array.items()) + "}"
    if isinstance(array, list):
        return f"a list of {len(array)} arrays"
    return "None" if array is None else f"{array.dtype}{list(array.shape)}"


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
    data = _taken_by(model, replace(data, batch=8))
    config = SessionConfig(threads=usable_cpus())
    metric = fitted(metric, model, data, config, runner)
    kept = [
        _score(metric, outputs, batch.labels) if metric.by_batch else (outputs, batch.labels)
        for batch, outputs in (runner or run_here)(model, data, config)
    ]
    rng = np.random.default_rng(seed)
    draws = [np.arange(len(kept)), *rng.integers(0, len(kept), (resamples, len(kept)))]
    found = (_together(metric, [kept[i] for i in draw]) for draw in draws)
    return np.array([f.value if isinstance(f, Pooled) else float(np.mean(f)) for f in found])


def _quality(metric: Metric, scores: Any, count: int) -> Quality:
    pooled = scores if isinstance(scores, Pooled) else None
    array = np.asarray(scores if pooled is None else pooled.value, np.float64)
    if not np.isfinite(array).all():
        raise OptionError(
            "the metric is NaN or infinite",
            where=metric.name,
            hint="Check the model's outputs for NaN",
        )
    items = array if array.ndim == 1 else None
    unit = 1.0 if items is not None and np.isin(items, (0, 1)).all() else 0.0
    outputs: tuple[OutputQuality, ...] = ()
    if pooled is not None:
        items, outputs = pooled.items if len(pooled.items) else None, pooled.outputs
        unit = pooled.unit
    value = float(array.mean())
    return Quality(
        metric.title,
        value,
        items,
        count,
        outputs,
        metric.lower_is_better,
        metric.limit,
        spec=metric.spec,
        unit=unit,
    )
