"""Rules that won wherever they were measured, by class of machines.

`ApplyRewrites` applies them without a clock, and `Tune` measures them first. A class of machines on
which nothing was measured has none: SkipLayerNormalization, whose kernel for the CPU is slow, is
fast on a GPU.
"""

from __future__ import annotations

from trimtab.core.target import Target

#: By instruction set of the CPU provider.
PROVEN_RULES: dict[str, tuple[str, ...]] = {
    "x64": ("sum-before-norm", "heads-in-place", "shortcut-as-conv")
}


def proven_rules(target: Target) -> tuple[str, ...]:
    """Return the rules to apply without measuring; none where nothing was measured."""
    return PROVEN_RULES.get(target.isa, ()) if target.provider == "CPUExecutionProvider" else ()
