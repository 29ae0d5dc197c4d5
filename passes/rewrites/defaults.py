"""Rules that won wherever they were measured, by what a machine's kernels are chosen by.

They are what `ApplyRewrites` writes without a clock, and what `Tune` asks its clock about first. A
class of machines that nothing was measured on has none: SkipLayerNormalization, whose kernel for
the CPU is slow, is fast on a GPU.
"""

from __future__ import annotations

from trimtab.core.target import Target

#: By instruction set of the CPU provider.
USUAL: dict[str, tuple[str, ...]] = {
    "x64": ("sum-before-norm", "heads-in-place", "shortcut-as-conv")
}


def usual(target: Target) -> tuple[str, ...]:
    """Rules to write without measuring; none where nothing was measured."""
    return USUAL.get(target.isa, ()) if target.provider == "CPUExecutionProvider" else ()
