"""Text of an analysis of an int8 model's rounding errors."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import log10
from operator import itemgetter
from typing import TYPE_CHECKING

from trimtab.core.text import counted, shortened, table

if TYPE_CHECKING:
    from trimtab.core.ort.overflow import Overflow
    from trimtab.passes.diagnosis.accuracy import AccuracyDiagnosis
    from trimtab.passes.diagnosis.causes import LayerDiagnosis

#: Most layers in the table, characters of a name there, and of a command.
LISTED, NAME, LONGEST = 12, 60, 400


def accuracy_lines(found: AccuracyDiagnosis) -> list[str]:
    """Return the layers by sensitivity as text, then the causes of the worst and their fixes."""
    total = sum(layer.sensitivity for layer in found.layers)
    lines = [
        f"The answer's error in int8 is {found.together**0.5:.2%} of its size "
        f"({_db(found.together)} dB) on {counted(found.samples, 'sample')}.",
        "Layers by the error that each alone makes in the answer:",
        "",
        *table(_HEADER, [_row(layer, total) for layer in found.layers[:LISTED]]),
    ]
    if len(found.layers) > LISTED:
        lines.append(f"and {len(found.layers) - LISTED} more; --json names them all")
    lines.append("")
    for layer in found.worth_fixing[:LISTED]:
        lines += [f"{layer.name} ({layer.kind}): {layer.cause}", f"  fix: {layer.fix}"]
    lines += _block(found)
    if found.kernels_differ:
        lines += ["", *_kernels(found)]
    for note in found.notes:
        lines += textwrap.wrap(f"note: {note}", 100)
    return [*lines, ""]


def _block(found: AccuracyDiagnosis) -> list[str]:
    """Return what leaving the worst layers float together takes; nothing where that is all."""
    from trimtab.passes.diagnosis.baseline_matcher import float_name

    block = found.float_block
    layers = {float_name(layer.name) for layer in found.layers if layer.op != "Input"}
    if not block or set(block) >= layers:
        return []
    title = "Together: these layers, and what lies between them, left float"
    command = f"{found.again} --exclude {','.join(block)}"
    if len(command) > LONGEST:
        names = f"the {len(block)} of `float_block` in --json"
        command = f"{found.again} --exclude NAMES, {names}"
    return [title, f"  fix: {command}"]


_HEADER = ["layer", "op", "of the error", "alone dB", "up to here dB", "clipped"]
_HEADER += ["range, bits", "weights dB"]


def _row(layer: LayerDiagnosis, total: float) -> list[str]:
    fit = layer.range_fit
    bits, kind = max((fit.wide_bits, "wide"), (fit.narrow_bits, "narrow"), key=itemgetter(0))
    return [
        shortened(layer.name, NAME),
        layer.op,
        f"{layer.sensitivity / total:.1%}" if total else "",
        _db(layer.alone),
        _db(layer.accumulated),
        f"{layer.clipped:.2%}" if layer.clipped else "",
        f"{bits:.1f} {kind}" if bits >= 0.05 else "",
        "" if layer.weight_error is None else _db(layer.weight_error),
    ]


def _db(error: float | None) -> str:
    if error is None:
        return "?"
    return f"{-10 * log10(error):.1f}" if error > 0 else "exact"


def _kernels(found: AccuracyDiagnosis) -> list[str]:
    return [
        f"! this machine's kernels make it {found.running**0.5:.2%} where rounding alone makes "
        f"{found.simulated**0.5:.2%}: 16-bit sums saturate (see below), or kernels round otherwise"
    ]


def overflow_lines(found: Sequence[Overflow], again: str) -> list[str]:
    """Return the layers that saturate on x64 without VNNI as text, the worst first.

    Args:
        found: the layers.
        again: command that makes the model again from the float one.
    """
    if not found:
        return ["No 16-bit sum saturates on x64 without VNNI (on these samples).", ""]
    rows = [
        [o.node, f"{o.share:.2%}", f"{o.largest / 32767:.2f}x", f"{o.lost:.2%}"]
        for o in found[:LISTED]
    ]
    lines = [
        f"! 16-bit sums of {counted(len(found), 'layer')} saturate on x64 without VNNI:",
        *table(["layer", "of the pairs", "largest sum", "lost"], rows),
    ]
    if len(found) > LISTED:
        lines.append(f"and {len(found) - LISTED} more; --json names them all")
    fix = (
        f"  fix: weights of 7 bits: {again} "
        "--target x64-avx2; or deploy with the session option session.x64quantprecision=1 (slower)"
    )
    return [*lines, fix, ""]
