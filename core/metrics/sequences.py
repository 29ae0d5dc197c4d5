"""Metrics of text: lines read by a model with CTC, and probabilities of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Array, Floats
from ..errors import DataError, OptionError
from ..model import Model
from ..text import shape_text
from .metric import Metric, Pooled, first_output, ratio_items


def collapsed(decisions: Array, blank: int) -> list[int]:
    """Return the symbols of a sequence: repetitions merged, blanks dropped (Graves et al. 2006)."""
    fresh = np.append(True, decisions[1:] != decisions[:-1])
    return [int(k) for k in decisions[fresh & (decisions != blank)]]


def edits(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the least number of insertions, deletions, substitutions (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def read_lines(probabilities: Array, alphabet: Sequence[str]) -> list[str]:
    """Return the most probable line of each item of (N, time, symbols); symbol 0 is the blank."""
    lines = probabilities.argmax(-1).reshape(len(probabilities), -1)
    return ["".join(alphabet[k] for k in collapsed(line, 0)) for line in lines]


def alphabet_of(model: Model, options: Mapping[str, str]) -> list[str]:
    """Return the symbols of a text recogniser, the blank first.

    They stand in the metadata `character` (PaddleOCR), or in the file of the option `alphabet`, one
    symbol a line.

    Raises:
        OptionError: neither is there.
    """
    text = model.ir.metadata_props.get("character")
    if options.get("alphabet"):
        try:
            text = Path(options["alphabet"]).read_text(encoding="utf-8")
        except OSError as error:
            raise OptionError(
                f"cannot be read ({error.strerror})", where=options["alphabet"]
            ) from error
    if text is None:
        raise OptionError(
            "has no alphabet in its metadata (`character`)",
            where=model.name,
            hint="exact, cer and wer judge lines of text: name a file with one symbol a line, "
            "--metric cer:alphabet=FILE. Class numbers are for --metric top1",
        )
    return ["", *text.splitlines(), " "]


def _line_metric(name: str, parts: Any, *, lower: bool) -> Metric:
    """Return a metric that compares the lines that a model reads with labels (N,) of text."""

    def configure(options: Mapping[str, str]) -> Metric:
        return replace(plain, fit=lambda model, _: fitted(alphabet_of(model, options)))

    def fitted(alphabet: Sequence[str]) -> Metric:
        def score(outputs: Mapping[str, Array], labels: Array) -> Floats:
            found = first_output(outputs)
            if found.ndim != 3:
                raise DataError(
                    f"needs outputs (N, time, symbols), these are {shape_text(found.shape)}",
                    where=name,
                )
            if found.shape[2] > len(alphabet):
                raise DataError(
                    f"the alphabet has {len(alphabet)} symbols, the output {found.shape[2]}",
                    where=name,
                )
            pairs = zip(labels.tolist(), read_lines(found, alphabet), strict=True)
            return np.array([parts(str(a), b) for a, b in pairs], np.float64).reshape(-1, 2)

        return replace(plain, score=score, fit=None)

    def finish(tables: Sequence[Floats]) -> Pooled:
        table = np.concatenate(tables)
        items = ratio_items(table[:, 0], table[:, 1])
        return Pooled(float(items.mean()), items)

    def unfitted(_outputs: Mapping[str, Array], _labels: Any) -> Any:
        raise AssertionError("the alphabet is read before lines are")

    plain = Metric(
        name,
        unfitted,
        itemwise=True,
        needs="labels: lines of text (N,); alphabet=FILE unless the model's metadata has it",
        lower_is_better=lower,
        finish=finish,
        fit=lambda model, _: fitted(alphabet_of(model, {})),
        configure=configure,
    )
    return plain


def _nll(outputs: Mapping[str, Array], labels: Array) -> Floats:
    """Return (N, 2): each item's negative log-likelihood, and its number of tokens."""
    logits = first_output(outputs).astype(np.float64)
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise DataError(
            f"labels of shape {shape_text(labels.shape)} do not fit outputs "
            f"{shape_text(logits.shape)}",
            where="labels",
            hint="perplexity needs the next token of each position (N, time), -100 to ignore one",
        )
    known = labels >= 0
    peak = logits.max(-1, keepdims=True)
    norm = np.log(np.exp(logits - peak).sum(-1)) + peak[..., 0]
    chosen = np.take_along_axis(logits, np.where(known, labels, 0)[..., None], -1)[..., 0]
    return np.stack([((norm - chosen) * known).sum(1), known.sum(1)], 1)


def _perplexity(tables: Sequence[Floats]) -> Pooled:
    table = np.concatenate(tables)
    items = ratio_items(table[:, 0], table[:, 1])
    value = float(np.exp(items.mean()))
    return Pooled(value, value + value * (items - items.mean()))


METRICS = (
    _line_metric("cer", lambda a, b: (edits(a, b), len(a)), lower=True),
    _line_metric("wer", lambda a, b: (edits(a.split(), b.split()), len(a.split())), lower=True),
    _line_metric("exact", lambda a, b: (a == b, 1), lower=False),
    Metric(
        "perplexity",
        _nll,
        itemwise=True,
        needs="labels: the next token of each position (N, time), -100 to ignore one",
        lower_is_better=True,
        finish=_perplexity,
    ),
)
