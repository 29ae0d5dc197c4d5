"""The state of an NVIDIA GPU as reported by `nvidia-smi`; None without that tool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.core.ort.accelerators import memory_of
from trimtab.core.ort.session import SessionConfig

#: Values of the fields, in their order; None if the tool, the GPU or a field is missing.
Ask = Callable[[Sequence[str], str], "list[str] | None"]
TOOL, TOOL_SECONDS = "nvidia-smi", 20.0
FACTS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "temperature.gpu")
#: Newer drivers say event, older ones throttle.
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
#: Microseconds since the driver was loaded.
_SLOWED = ("sw_power_cap", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
COUNTERS = tuple(f"clocks_event_reasons_counters.{name}" for name in _SLOWED)
#: Bits of the active reasons that slow the clock below its setting; idling and the user's own
#: settings do not count. Source: NVML's nvmlClocksEventReasons.
SLOWING: Mapping[int, str] = {
    0x04: "its power limit",
    0x08: "a slowdown of the hardware",
    0x20: "its temperature (driver)",
    0x40: "its temperature (hardware)",
    0x80: "the power supply's brake",
}
#: Largest share of the time in which the clock may be slowed.
SLOWED_SHARE = 0.01


def nvidia_smi(fields: Sequence[str], device: str) -> list[str] | None:
    """Query `nvidia-smi` for fields of one device."""
    query = [TOOL, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - fields are ours, the device a number or an id
            [*query, "-i", device], capture_output=True, text=True, timeout=TOOL_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = [part.strip() for part in done.stdout.partition("\n")[0].split(",")]
    return found if len(found) == len(fields) else None


@dataclass(frozen=True)
class GpuState:
    """State of a GPU at one moment.

    Attributes:
        name: model name.
        driver: version of the driver.
        clock_mhz: current clock of the multiprocessors; None if unknown.
        most_mhz: highest clock.
        celsius: temperature.
        reasons: bits of what limits the clock now.
        slowed_us: time since the driver was loaded in which the clock was slowed; None if the
            driver does not count it.
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
        """Return the state of the GPU that a configuration runs on; None for a CPU."""
        if memory_of(config.provider) != "cuda":
            return None
        device = smi_device(str(config.provider_options.get("device_id", "0")))
        return cls.now(device, ask) or cls("unknown GPU", "unknown")

    @classmethod
    def now(cls, device: str = "0", ask: Ask | None = None) -> GpuState | None:
        """Return the state of a device; None if it cannot be queried."""
        ask = ask or nvidia_smi
        facts = ask(FACTS, device)
        if facts is None:
            return None
        reasons = next((found for name in REASONS if (found := ask((name,), device))), ["0"])
        counted = [_number(text) for text in ask(COUNTERS, device) or []]
        known = [n for n in counted if n is not None]
        name, driver, *texts = facts
        clock, most, celsius = (_number(text) for text in texts)
        slowed = sum(known) if known else None
        return cls(name, driver, clock, most, celsius, _number(reasons[0]) or 0, slowed)


def smi_device(device: str) -> str:
    """Return the name for `nvidia-smi` of a CUDA device; CUDA may see only some of all GPUs."""
    visible = [v.strip() for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    index = int(device) if device.isdigit() else 0
    return visible[index] if index < len(visible) and visible[index] else device


def disturbances(
    before: GpuState | None, after: GpuState | None, wall_ns: float
) -> tuple[dict[str, float], list[str]]:
    """Return figures of the GPU over a measurement, and a sentence for each that is too large."""
    if after is None:
        return {}, []
    known = {"clock": after.clock_mhz, "clock_most": after.most_mhz, "celsius": after.celsius}
    facts = {f"gpu_{name}": float(value) for name, value in known.items() if value is not None}
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
    except ValueError:  # such as "[N/A]"
        return None
