"""Session options chosen like rewrites: one at a time, kept where the same model runs faster.

A rewritten graph needs nothing from its users, an option has to be set by each of them: so rewrites
come first, and options get what is left to gain.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import onnx_ir as ir

from trimtab.core.context import Ratio
from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds, SessionConfig, build_session, optimized_graph, run
from trimtab.core.progress import Progress, Silent

from ..base import relative_error
from .search import LEAST_SECONDS, LEFT, MEASURING, OVERTIME
from .trials import TrialBudget

#: Metadata keys: of the whole configuration, and of the part that onnxruntime reads itself where
#: the variable ORT_LOAD_CONFIG_FROM_MODEL is 1.
SESSION_KEY, ORT_KEY = "trimtab.session", "ort_config"
LEVELS = {"off": 0, "basic": 1, "extended": 2, "all": 99}
#: Relative; fusions round differently, and in int8 models a rounding may become a step.
TOLERANCE = 1e-4
#: Optimizers of onnxruntime that are a loss on some models.
OPTIMIZERS = (
    "NchwcTransformer",
    "SkipLayerNormFusion",
    "BiasGeluFusion",
    "MatMulAddFusion",
    "ConvActivationFusion",
    "TransposeOptimizer",
)


class ConfigClock(Protocol):
    """Clock that measures one model under two configurations."""

    def compare_configs(
        self,
        model: Model,
        base: SessionConfig,
        candidate: SessionConfig,
        feeds: Feeds,
        seconds: float,
    ) -> Ratio:
        """Measure the speed-up under the candidate over the base, interleaved in one run."""
        ...


@dataclass(frozen=True)
class Setting:
    """Session option that may help.

    Attributes:
        name: name for messages.
        change: function that adds it to a configuration.
        of_graph: true where it works by changing the graph that runs, so that an equal graph
            decides it.
        of_threads: true where it matters with several threads only.
    """

    name: str
    change: Callable[[SessionConfig], SessionConfig]
    of_graph: bool = False
    of_threads: bool = False


@dataclass(frozen=True)
class SettingTrial:
    """Setting that was tried, with its speed-up and the verdict."""

    setting: str
    ratio: Ratio | None
    verdict: str

    def __str__(self) -> str:
        return f"{self.ratio}: {self.verdict}" if self.ratio else self.verdict


@dataclass(frozen=True)
class Options:
    """Configuration that won, and all settings that were tried."""

    config: SessionConfig
    tried: tuple[SettingTrial, ...]

    @property
    def gains(self) -> dict[str, str]:
        """Speed-ups of the settings that were kept."""
        return {t.setting: str(t.ratio) for t in self.tried if t.verdict == "kept"}


def settings(config: SessionConfig) -> list[Setting]:
    """Return the settings to try on top of a configuration."""
    found = [Setting(f"threads {n}", _field(threads=n)) for n in _fewer(config.threads)]
    blocks = _entry("session.dynamic_block_base", "4")
    found.append(Setting("spinning threads", _field(spinning=True), of_threads=True))
    found.append(Setting("dynamic block base 4", blocks, of_threads=True))
    found += [Setting(f"without {name}", _without(name), of_graph=True) for name in OPTIMIZERS]
    found += [
        Setting("graph level extended", _field(level="extended"), of_graph=True),
        Setting("denormals as zero", _entry("session.set_denormal_as_zero", "1")),
        Setting("without prepacked weights", _entry("session.disable_prepacking", "1")),
    ]
    found += [
        Setting("without memory pattern", _field(memory_pattern=False)),
        Setting("without arena", _field(arena=False)),
    ]
    return found


def tune_options(
    model: Model,
    config: SessionConfig,
    cases: Sequence[Feeds],
    clock: ConfigClock,
    seconds: float,
    progress: Progress | None = None,
) -> Options:
    """Try each setting on top of those kept so far.

    Args:
        model: model that will run.
        config: configuration to start from.
        cases: feeds; the first one is measured, all must give the same numbers.
        clock: clock that measures.
        seconds: time for everything together.
        progress: receiver of messages.
    """
    budget, progress = TrialBudget.of(seconds), progress or Silent()
    bench = _Bench(model, cases, clock, progress)
    tried: list[SettingTrial] = []
    open_settings = settings(config)
    for index, setting in enumerate(open_settings):
        share = MEASURING * budget.left / (len(open_settings) - index)
        found = bench.tried(config, setting, share)
        tried.append(found)
        if found.verdict == "kept":
            config = setting.change(config)
    return Options(config, tuple(tried))


@dataclass(frozen=True)
class _Bench:
    """Model and feeds that settings are tried on."""

    model: Model
    cases: Sequence[Feeds]
    clock: ConfigClock
    progress: Progress

    def tried(self, config: SessionConfig, setting: Setting, seconds: float) -> SettingTrial:
        candidate = setting.change(config)
        if setting.of_threads and config.threads == 1:
            return SettingTrial(setting.name, None, "has no meaning with one thread")
        if seconds < LEAST_SECONDS:
            return SettingTrial(setting.name, None, OVERTIME)
        try:
            if setting.of_graph and self._runs(config) == self._runs(candidate):
                return SettingTrial(setting.name, None, "changes nothing here")
            if not self._same_numbers(config, candidate):
                return SettingTrial(setting.name, None, "dropped, it changes the numbers")
            self.progress.say(f"measuring {setting.name}")
            ratio = self.clock.compare_configs(
                self.model, config, candidate, self.cases[0], seconds
            )
        except RunError as refused:
            return SettingTrial(setting.name, None, f"dropped: {refused.what}")
        slower = "slower" if ratio.slower else f"inconclusive, {LEFT}"
        return SettingTrial(setting.name, ratio, "kept" if ratio.faster else slower)

    def _runs(self, config: SessionConfig) -> Mapping[str, int]:
        """Count the operators that really run."""
        running: ir.Model = optimized_graph(self.model, config)
        return collections.Counter(f"{n.domain}:{n.op_type}" for n in running.graph.all_nodes())

    def _same_numbers(self, config: SessionConfig, candidate: SessionConfig) -> bool:
        old, new = build_session(self.model, config), build_session(self.model, candidate)
        for feeds in self.cases:
            expected, got = run(old, feeds), run(new, feeds)
            if any(relative_error(a, got[n]) > TOLERANCE for n, a in expected.items()):
                return False
        return True


def write_options(model: Model, config: SessionConfig) -> Model:
    """Return a copy with the configuration in its metadata, for `trimtab.session` and others."""
    copy = model.clone()
    copy.ir.metadata_props[SESSION_KEY] = json.dumps(config.to_json(), sort_keys=True)
    options = {
        "intra_op_num_threads": config.threads,
        "inter_op_num_threads": 1,
        "graph_optimization_level": LEVELS[config.level],
    }
    copy.ir.metadata_props[ORT_KEY] = json.dumps({"session_options": options}, sort_keys=True)
    return copy


def read_options(metadata: Mapping[str, str]) -> SessionConfig | None:
    """Return the configuration that a model's metadata carries; None where there is none."""
    text = metadata.get(SESSION_KEY)
    if text is None:
        return None
    try:
        return SessionConfig.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError):
        return None  # of another version or program


def _field(**changes: Any) -> Callable[[SessionConfig], SessionConfig]:
    return lambda config: replace(config, **changes)


def _entry(key: str, value: str) -> Callable[[SessionConfig], SessionConfig]:
    return lambda config: replace(config, config={**config.config, key: value})


def _without(name: str) -> Callable[[SessionConfig], SessionConfig]:
    return lambda config: replace(config, disabled_optimizers=(*config.disabled_optimizers, name))


def _fewer(threads: int) -> list[int]:
    """Return half, a quarter, ... of the threads: small models are slower with more."""
    return [threads >> n for n in range(1, threads.bit_length())]
