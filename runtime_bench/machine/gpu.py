"""Facts of an NVIDIA GPU, as `nvidia-smi` tells them; none where there is no such tool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.session import SessionConfig

#: Answers for the fields, in their order; None where the tool, the GPU or a field is missing.
Ask = Callable[[Sequence[str], str], "list[str] | None"]
TOOL, TOOL_SECONDS = "nvidia-smi", 20.0
FACTS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "temperature.gpu")
#: Newer drivers call it an event; the older name stays longest on those that know both.
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
#: Microseconds since the driver was loaded.
COUNTERS = tuple(
    f"clocks_event_reasons_counters.{name}"
    for name in (
        "sw_power_cap",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
    )
)
#: Bits of the active reasons that slow the clock against its setting; idling and the user's own
#: settings are none. Source: NVML's nvmlClocksEventReasons.
SLOWING: Mapping[int, str] = {
    0x04: "its power limit",
    0x08: "a slowdown of the hardware",
    0x20: "its temperature (driver)",
    0x40: "its temperature (hardware)",
    0x80: "the power supply's brake",
}
#: Share of the time in which the clock may have been slowed.
SLOWED_SHARE = 0.01


def nvidia_smi(fields: Sequence[str], device: str) -> list[str] | None:
    """Ask the tool for fields of one device."""
    asked = [TOOL, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - fields are ours, the device a number or an id
            [*asked, "-i", device],
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = [part.strip() for part in done.stdout.partition("\n")[0].split(",")]
    return found if len(found) == len(fields) else None


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment.

    Attributes:
        name: its model.
        driver: version.
        clock_mhz: of its multiprocessors now, None where unknown.
        most_mhz: the highest that it can have.
        celsius: its temperature.
        reasons: bits of what limits its clock now.
        slowed_us: time since the driver was loaded in which its clock was slowed, None where the
            driver does not count.
    """

    name: str
    driver: str
    clock_mhz: int | None = None
    most_mhz: int | None = None
    celsius: int | None = None
    reasons: int = 0
    slowed_us: int | None = None

    @classmethod
    def of(cls, config: SessionConfig, ask: Ask | None = None) -> GpuState | None:
        """The GPU that a configuration runs on, unknown where nobody tells; None for a CPU."""
        if memory_of(config.provider) != "cuda":
            return None
        device = smi_device(str(config.provider_options.get("device_id", "0")))
        return cls.now(device, ask) or cls("unknown GPU", "unknown")

    @classmethod
    def now(cls, device: str = "0", ask: Ask | None = None) -> GpuState | None:
        """The state of a device, None where it cannot be told."""
        ask = ask or nvidia_smi
        facts = ask(FACTS, device)
        if facts is None:
            return None
        told = next((found for name in REASONS if (found := ask((name,), device))), ["0"])
        counted = [_number(text) for text in ask(COUNTERS, device) or []]
        known = [n for n in counted if n is not None]
        name, driver, *texts = facts
        clock, most, celsius = (_number(text) for text in texts)
        slowed = sum(known) if known else None
        return cls(name, driver, clock, most, celsius, _number(told[0]) or 0, slowed)


def smi_device(device: str) -> str:
    """What `nvidia-smi` calls the device that CUDA counts, which may see a part of all only."""
    visible = [v.strip() for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    index = int(device) if device.isdigit() else 0
    return visible[index] if index < len(visible) and visible[index] else device


def disturbances(
    before: GpuState | None, after: GpuState | None, wall_ns: float
) -> tuple[dict[str, float], list[str]]:
    """Figures of the GPU over a measurement, and a sentence for each that makes it unfit."""
    if after is None:
        return {}, []
    told = {"clock": after.clock_mhz, "clock_most": after.most_mhz, "celsius": after.celsius}
    facts = {f"gpu_{name}": float(value) for name, value in told.items() if value is not None}
    reasons = [
        f"the GPU's clock is slowed by {why}: let it cool, or lock its clock lower"
        for bit, why in SLOWING.items()
        if after.reasons & bit
    ]
    if before and before.slowed_us is not None and after.slowed_us is not None:
        share = (after.slowed_us - before.slowed_us) * 1000 / max(1.0, wall_ns)
        facts["gpu_slowed"] = share
        if share > SLOWED_SHARE and not reasons:
            reasons.append(
                f"the GPU's clock was slowed {share:.1%} of the time (at most {SLOWED_SHARE:g}): "
                "let it cool, or lock its clock lower"
            )
    return facts, reasons


def _number(text: str) -> int | None:
    try:
        return int(text, 0) if text.startswith("0x") else int(float(text))
    except ValueError:  # "[N/A]" and the like
        return None
