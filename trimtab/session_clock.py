"""The bench as a clock for session options: one model under two configurations."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimtab.core.context import Ratio
from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.session import Feeds, SessionConfig
from trimtab.runtime_bench.arms import InProcessArm
from trimtab.runtime_bench.clock import ALPHA
from trimtab.runtime_bench.compare import compare


class AsConfigured(InProcessArm):
    """A session with its threads spinning where the configuration says so.

    They stop at the end of each run: threads that went on would take the other session's CPUs.
    """

    def __init__(self, model: Model, config: SessionConfig, name: str) -> None:
        super().__init__(model, config, name)
        entries = {**config.config, "session.force_spinning_stop": "1"}
        self.config = replace(config, config=entries) if config.spinning else config


@dataclass(frozen=True)
class SessionClock:
    """Measures one model under two configurations, interleaved.

    Attributes:
        seed: of the order of blocks.
    """

    seed: int = 0

    def compare_configs(
        self,
        model: Model,
        base: SessionConfig,
        candidate: SessionConfig,
        feeds: Feeds,
        seconds: float,
    ) -> Ratio:
        """Speed-up under the candidate over the base.

        Raises:
            RunError: a session was refused or failed, or there was no time for a block.
        """
        arms = iter(
            [AsConfigured(model, base, "as it is"), AsConfigured(model, candidate, "changed")]
        )
        found = compare(
            model,
            [model],
            feeds,
            config=base,
            max_seconds=seconds,
            alpha=ALPHA,
            seed=self.seed,
            in_process=True,
            make_arm=lambda source, name: next(arms),  # noqa: ARG005 - of both the model is known
        )[0].check()
        if found.interrupted:
            raise KeyboardInterrupt  # half a measurement decides nothing
        if not found.blocks:
            raise RunError(f"one comparison takes longer than {seconds:g} s", where=model.name)
        return Ratio(found.ratio, found.low, found.high)
