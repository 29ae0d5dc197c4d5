"""Engines: an execution provider with its options, as people write it.

cpu   openvino   openvino:device_type=GPU,precision=f16   CUDAExecutionProvider
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import OptionError
from .accelerators import ACCELERATORS, CPU
from .session import SessionConfig

SHORT: Mapping[str, str] = {
    "cpu": CPU,
    **{known.short: name for name, known in ACCELERATORS.items()},
}


@dataclass(frozen=True)
class Engine:
    """Execution provider and its options.

    Attributes:
        provider: onnxruntime's name of the provider.
        options: options of the provider.
    """

    provider: str = CPU
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Engine:
        """Read a short or a whole name of a provider, with `:key=value,...` for its options.

        A name that is not known stays as it is: `check_installed` refuses it with the nearest.

        Raises:
            OptionError: the options are not written so.
        """
        name, _, rest = text.strip().partition(":")
        options: dict[str, str] = {}
        for part in rest.split(",") if rest else []:
            key, equals, value = part.partition("=")
            if not (equals and key.strip() and value.strip()):
                raise OptionError(
                    f"{part!r} is not an option of a provider",
                    where=f"--provider {text}",
                    hint="Write it as openvino:device_type=CPU,precision=f32",
                )
            options[key.strip()] = value.strip()
        return cls(SHORT.get(name.lower(), name), options)

    def __str__(self) -> str:
        short = next((s for s, name in SHORT.items() if name == self.provider), self.provider)
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{short}:{options}" if options else short

    def applied(self, config: SessionConfig) -> SessionConfig:
        """Return a configuration with this provider and these options."""
        return replace(config, provider=self.provider, provider_options=dict(self.options))


def engine_config(text: str | None, threads: int) -> SessionConfig:
    """Return the configuration of a session on a named engine; on the CPU where None."""
    return Engine.of(text or "cpu").applied(SessionConfig(threads=threads))
