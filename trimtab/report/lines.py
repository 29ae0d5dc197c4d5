"""Lines that a command prints about models and passes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.core.context import Ratio
from trimtab.core.metric import Quality
from trimtab.core.metrics.metric import spread_text, with_interval
from trimtab.core.model import Model
from trimtab.core.text import bytes_text, counted
from trimtab.passes.quantization.judge import PROMISED

from .notes import note_lines
from .outputs_kept import OTHERS, OutputsKept
from .pass_outcome import PassOutcome


def pass_lines(outcome: PassOutcome, path: Path) -> list[str]:
    """Return what a pass did: sizes, where it came to nothing, its report, what it declined."""
    before, after = outcome.before, outcome.after
    sizes = f"{bytes_text(before.size_bytes)} -> {_on_disk(path, outcome.written)}"
    told = f", {outcome.told}" if outcome.told else ""
    lines = [f"{before.name} -> {path}: {sizes}{told}{_loss(outcome)}"]
    lines += [str(outcome.kept)] if outcome.kept else []
    if not after.lineage:
        return lines
    return [*lines, *note_lines(after.lineage[-1].notes)]


def _loss(outcome: PassOutcome) -> str:
    """Return what the first line says of a model that has lost more than a few of its answers."""
    kept = outcome.kept
    if not isinstance(kept, OutputsKept) or not (kept.ruined or kept.least < PROMISED):
        return ""
    name = outcome.after.lineage[-1].pass_name
    pruned = name.startswith(("prune", "gradual"))
    advice = "retrain it, or remove less" if pruned else "keep more of it float"
    fed = re.split("[:,]", kept.fed)[0]
    share = with_interval(kept.fidelity, kept.interval)
    told = f"and keeps {share} of the original's answers on {fed}"
    if kept.others is not None:
        told += f", {kept.others:.3f} {OTHERS}"
    if kept.ruined:
        figures = f"fidelity {kept.fidelity:.3f}, error {kept.error:.3g}, on {fed}"
        told = f"and it answers otherwise than the original ({figures})"
    return f", {told}: {advice}"


#: Speed-up that is open where its interval reaches below 1; nearer to 1 there is none to show.
LOOKS_FASTER = 1.05


def promise_line(promise: Mapping[str, Any], speed_up: Ratio | None) -> str:
    """Return what a quantized model keeps, how much faster it is, and which it could not do."""
    rows, held_out = promise["rows"], promise["held_out"]
    kept = with_interval(promise["fidelity"], promise.get("interval"))
    told = f"keeps {kept} of the float model's answers on {counted(rows, 'row')}"
    told += "" if rows == held_out else f" ({held_out or 'none'} held out)"
    told += "" if speed_up is None else f", {_speed(speed_up)}"
    could_not = [f"keep {promise['wanted']:g} of the answers"] if promise["broken"] else []
    if speed_up is not None and not speed_up.faster:
        looks_faster = speed_up.value > LOOKS_FASTER
        could_not.append(f"be {'shown to be ' if looks_faster else ''}faster than float")
    return f"{told}. COULD NOT {' NOR '.join(could_not)}" if could_not else told


def _speed(speed_up: Ratio) -> str:
    """Say how fast it is; an interval without width is that of the graph that float runs."""
    same = speed_up.low == speed_up.high == 1
    return f"{speed_up} as fast as float{', whose graph it becomes when loaded' if same else ''}"


def export_lines(model: Model, path: Path) -> list[str]:
    """Return what was exported, and how closely onnxruntime agrees with torch."""
    inputs, outputs = (", ".join(map(str, specs)) for specs in (model.inputs, model.outputs))
    lines = [
        f"{model.name} -> {path}: {_on_disk(path, model)}",
        f"in:  {inputs}",
        f"out: {outputs}",
    ]
    notes = model.lineage[-1].notes
    for name, error in notes.get("parity", {}).items():
        lines.append(
            f"parity with torch, {name}: {error['max_abs']:.1e} at most, "
            f"{error['max_rel']:.1e} of the largest value"
        )
        if "torch_max_rel" in error:
            lines.append(
                "  judged by float64: torch's own float32 is up to "
                f"{error['torch_max_rel']:.1e} away from it"
            )
    for axis, (low, high) in notes.get("ranges", {}).items():
        lines.append(f"axis {axis}: proved for {low}{f' to {high}' if high else ' and more'}")
    lines += [
        f"{name}.symbolic is not called: torch's exporter traces the Function's forward, and the "
        "file has the operators of that"
        for name in notes.get("symbolic_ignored", ())
    ]
    if "changed_buffers" in notes:
        lines.append(
            f"forward changes buffers, the file does not: {', '.join(notes['changed_buffers'][:5])}"
        )
    if "fixed_batch" in notes:
        lines.append(f"the batch is fixed: {notes['fixed_batch']}")
    return lines


def next_steps(path: Path, before: str, *, judge: bool) -> list[str]:
    """Return the commands that show what a written model is worth beside the one before it.

    Args:
        path: the written file.
        before: the model that it was made from.
        judge: whether its answers may have changed.
    """
    if not path.is_file():  # a pipe or a device
        return []
    file = str(path)
    judging = ["trimtab", "eval", file, "--reference", before, "--data", "EVAL"]
    shown = [*([judging] if judge else []), ["trimtab", "bench", before, file]]
    return [f"{'next: ' if n == 0 else '      '}{shlex.join(c)}" for n, c in enumerate(shown)]


def _on_disk(path: Path, model: Model) -> str:
    if not path.is_file():  # a pipe or a device
        return bytes_text(model.size_bytes)
    data = path.with_name(path.name + ".data")
    extra = data.stat().st_size if data.exists() else 0
    return bytes_text(path.stat().st_size + extra)


def quality_line(quality: Quality) -> str:
    """Return a quality with half of its 95% interval."""
    spread = spread_text(quality.half_interval)
    line = f"{quality.metric} {quality.value:.4f}{spread} on {counted(quality.count, 'item')}"
    if not quality.outputs:
        return line
    worst = min(quality.outputs, key=lambda output: output.value)
    return f"{line}, of output {worst.name!r} ({worst.kind})"


def output_lines(quality: Quality) -> list[str]:
    """Return a line for each output where outputs are judged one by one and there are several."""
    rows = quality.outputs if len(quality.outputs) > 1 else ()
    return [f"  {row.name}: {row.value:.4f} ({row.kind})" for row in rows]
