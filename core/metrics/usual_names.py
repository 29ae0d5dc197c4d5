"""Names of metrics in other tools, for those who look for one of ours."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import OptionError, nearest

#: Names that other tools give to metrics of ours.
_USUAL = {
    "acc": "top1",
    "accuracy": "top1",
    "top-1": "top1",
    "top-5": "top5",
    "iou": "miou",
    "mean_ap": "map",
    "mse": "neg_mse",
    "rmse": "neg_mse",
    "ppl": "perplexity",
    "sdr": "si_snr",
}


def unknown_metric(name: str, known: Iterable[str]) -> OptionError:
    """Return the error for a name that no metric has, with the one that is meant."""
    usual = _USUAL.get(name.lower())
    hint = f"Did you mean {usual!r}?" if usual else nearest(name, known)
    return OptionError(f"unknown metric {name!r}", hint=hint)
