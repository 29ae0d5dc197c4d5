"""Why an int8 model is wrong, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.core.text import table

if TYPE_CHECKING:
    from trimtab.core.ort.overflow import Overflow
    from trimtab.passes.diagnosis.accuracy import AccuracyDiagnosis
    from trimtab.passes.diagnosis.causes import LayerDiagnosis

#: Layers in the table.
LISTED = 12


def accuracy_lines(found: AccuracyDiagnosis) -> list[str]:
    """For the terminal: the layers by harm, then what is wrong with the worst and their mends."""
    total = sum(v.sensitivity for v in found.layers)
    told = [
        f"The answer's error in int8 is {found.together**0.5:.2%} of its size "
        f"({_db(found.together)} dB) on {found.samples} samples.",
        "Layers by the error that each alone makes in the answer:",
        "",
        *table(_HEADER, [_row(v, total) for v in found.layers[:LISTED]]),
    ]
    if len(found.layers) > LISTED:
        told.append(f"and {len(found.layers) - LISTED} more; --json names them all")
    told.append("")
    for verdict in found.worth_fixing[:LISTED]:
        told += [f"{verdict.name} ({verdict.kind}): {verdict.cause}", f"  mend: {verdict.fix}"]
    if found.kernels_differ:
        told += ["", *_kernels(found)]
    for note in found.notes:
        told += textwrap.wrap(f"note: {note}", 100)
    return [*told, ""]


_HEADER = (
    "layer",
    "op",
    "of the harm",
    "alone dB",
    "up to here dB",
    "clipped",
    "range, bits",
    "weights dB",
)


def _row(verdict: LayerDiagnosis, total: float) -> list[str]:
    fit = verdict.range_fit
    bits = (
        f"{fit.narrow_bits:.1f} narrow"
        if fit.narrow_bits > fit.wide_bits
        else f"{fit.wide_bits:.1f} wide"
    )
    return [
        verdict.name,
        verdict.op,
        f"{verdict.sensitivity / total:.1%}" if total else "",
        _db(verdict.alone),
        _db(verdict.accumulated),
        f"{verdict.clipped:.2%}" if verdict.clipped else "",
        bits if max(fit.narrow_bits, fit.wide_bits) >= 0.05 else "",
        "" if verdict.weight_error is None else _db(verdict.weight_error),
    ]


def _db(error: float) -> str:
    from math import log10

    return f"{-10 * log10(error):.1f}" if error > 0 else "exact"


def _kernels(found: AccuracyDiagnosis) -> list[str]:
    return [
        f"! this machine's kernels make it {found.running**0.5:.2%} where rounding alone makes "
        f"{found.simulated**0.5:.2%}: 16-bit sums saturate (see below), or kernels round otherwise"
    ]


def overflow_lines(found: Sequence[Overflow]) -> list[str]:
    """For the terminal: layers that saturate on x64 without VNNI, the worst first."""
    if not found:
        return ["No 16-bit sum saturates on x64 without VNNI (on these samples).", ""]
    rows = [
        [o.node, f"{o.share:.2%}", f"{o.largest / 32767:.2f}x", f"{o.lost:.2%}"]
        for o in found[:LISTED]
    ]
    told = [
        f"! {len(found)} layers saturate 16-bit sums on x64 without VNNI:",
        *table(["layer", "of the pairs", "largest sum", "lost"], rows),
    ]
    if len(found) > LISTED:
        told.append(f"and {len(found) - LISTED} more; --json names them all")
    mend = (
        "  mend: weights of 7 bits: trimtab quantize-static FLOAT -o OUT --data DATA "
        "--target x64-avx2; or deploy with the session option session.x64quantprecision=1 (slower)"
    )
    return [*told, mend, ""]
