"""Sessions of onnxruntime: the only place where they are built.

onnxruntime accepts misspelt configuration keys without a word and falls back to the CPU when a
provider is missing; both are errors here.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import unknown
from ..maps import as_array, from_proto
from ..model import EXTERNAL_DATA_BYTES, Model
from ..runtime import runtime
from ..target import Target, check_threads, usable_cpus
from ..timings import stage
from ..watch import foreign_call
from .accelerators import chain, check_installed, check_started, compiles, load_libraries
from .given_weights import Given, given_weights
from .plugins import built_in_providers, chosen_devices, is_plugin, plugin_names
from .provider_options import with_threads
from .random_operators import with_fixed_draws
from .refusals import runtime_errors
from .session_keys import CONFIG_KEYS
from .shared_weights import split_shared_weights

Feeds = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]
Level = Literal["off", "basic", "extended", "all"]
#: Entry that makes x64 sum 8-bit products in 32 bits whatever the CPU has.
EXACT_INT8 = "session.x64quantprecision"
#: Entry that lets x64 fuse int8 operators of signed activations; ARM does without it.
INT8_ALLOWED = "session.qdqisint8allowed"
#: Number of constants above which even a session of one run may prepack (`for_one_run`).
MANY_CONSTANTS = 5000
#: Number of nodes above which optimizers that fuse nothing are left out (`with_fusions_only`).
MANY_NODES = 5000
#: Units of work, of 5 s each, that a first run gets at most for its size.
_MOST_WORK = 1000.0
_EQUALITY_OPTIMIZERS = ("ConstantSharing", "CommonSubexpressionElimination")


@dataclass(frozen=True)
class SessionConfig:
    """Options of a session; equal configurations give comparable sessions.

    Attributes:
        provider: execution provider; must exist in this onnxruntime.
        threads: intra-op threads, never onnxruntime's default.
        level: graph optimization level.
        spinning: true where idle threads spin. Off by default: two sessions that spin take each
            other's cores while they are compared.
        config: further session configuration entries, keys checked against `CONFIG_KEYS`.
        provider_options: options of the provider.
        disabled_optimizers: graph optimizers of onnxruntime to leave out.
        arena: true where CPU memory comes from onnxruntime's arena, which never gives it back.
        memory_pattern: true where a run's memory is planned from earlier runs of the same shapes.
    """

    provider: str = "CPUExecutionProvider"
    threads: int = 1
    level: Level = "all"
    spinning: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    provider_options: Mapping[str, str] = field(default_factory=dict)
    disabled_optimizers: tuple[str, ...] = ()
    arena: bool = True
    memory_pattern: bool = True

    def __post_init__(self) -> None:
        check_threads(self.threads)

    @classmethod
    def of(cls, target: Target) -> SessionConfig:
        """Return the configuration that a target is measured with."""
        return cls(provider=target.provider, threads=target.threads)

    @classmethod
    def for_evaluation(cls, target: Target, threads: int = 1) -> SessionConfig:
        """Return the configuration that computes on this CPU what the target would.

        An x64 host without VNNI sums 8-bit products in saturating 16 bits. For a target that sums
        them in 32 bits the exact kernels are used, which are slow.
        """
        exact = target.vnni and not Target.detect().vnni
        fused = cls.with_fusions_of(target).config
        entries = {**fused, EXACT_INT8: "1"} if exact else fused
        return cls(threads=threads, config=entries, memory_pattern=False)

    @classmethod
    def with_fusions_of(cls, target: Target) -> SessionConfig:
        """Return the configuration that fuses on this machine what is fused on the target.

        On ARM onnxruntime makes int8 operators of signed activations, on x64 it does not.
        """
        foreign = target.isa == "arm64" and Target.detect().isa != "arm64"
        return replace(cls.of(target), config={INT8_ALLOWED: "1"} if foreign else {})

    @classmethod
    def for_inner_tensors(cls, level: Level = "all") -> SessionConfig:
        """Return the configuration for runs that give inner tensors, each in memory of its own.

        An arena would keep what all of them took, for as long as any is left.
        """
        return cls(threads=usable_cpus(), level=level, arena=False, memory_pattern=False)

    def for_one_run(self, model: Model | str | Path) -> SessionConfig:
        """Return the configuration for a session that runs once: weights are not prepacked.

        Large graphs are prepacked all the same: without prepacking onnxruntime needs time quadratic
        in the number of constants (1.32.0: 24 s instead of 6 s for 5,000 Conv in Q/DQ).
        """
        if isinstance(model, Model) and len(model.ir.graph.initializers) > MANY_CONSTANTS:
            return self
        return replace(self, config={**self.config, "session.disable_prepacking": "1"})

    def with_fusions_only(self, model: Model) -> SessionConfig:
        """Return the configuration to see what is fused, quickly: large graphs are only fused.

        The layouts of convolutions and the search for equal constants and nodes take time that is
        quadratic in the nodes (1.32.0: 2.2 s for 10,000 nodes in Q/DQ, 1.1 s without them).
        """
        if len(model.ir.graph) <= MANY_NODES:
            return self
        level: Level = "extended" if self.level == "all" else self.level
        return replace(self.without(*_EQUALITY_OPTIMIZERS), level=level)

    def without(self, *optimizers: str) -> SessionConfig:
        """Return the configuration that leaves out these graph optimizers as well."""
        return replace(self, disabled_optimizers=(*self.disabled_optimizers, *optimizers))

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        plain: dict[str, Any] = {"disabled_optimizers": list(self.disabled_optimizers)}
        plain |= {"config": dict(self.config), "provider_options": dict(self.provider_options)}
        return self.__dict__ | plain

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SessionConfig:
        """Return the configuration that `to_json` wrote."""
        without = tuple(value.get("disabled_optimizers", ()))
        return cls(**{**value, "disabled_optimizers": without})


def build_session(
    model: Model | str | Path,
    config: SessionConfig | None = None,
    *,
    save_to: Path | None = None,
    profile_to: Path | None = None,
    shapes_first: bool = False,
    copied: bool = False,
) -> Any:
    """Build an `onnxruntime.InferenceSession`.

    A model in memory draws the same random numbers in each session, so that it can be compared.
    Sessions of a large one on the CPU read its weights where they lie.

    Args:
        model: a model in memory, or a file.
        config: session options; the defaults where None.
        save_to: file to which onnxruntime writes the optimized graph.
        profile_to: prefix of the profile that `end_profiling` writes; profiling slows every node,
            so only shares of its times mean anything.
        shapes_first: run Shape before what is not needed for it, so that what it reads is freed.
        copied: copy the weights into the session in any case, as loading a file does.

    Raises:
        OptionError: a provider that this onnxruntime lacks or that does not start, or an unknown
            configuration key.
        RunError: onnxruntime refuses the model.
    """
    ort = runtime()

    # What fails comes back as an exception; the log of it is coloured, and tells of no model.
    ort.set_default_logger_severity(4)
    config = config or SessionConfig()
    options = _options(config)
    if shapes_first:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    have = available_providers()
    check_installed(config.provider, have)
    load_libraries(config.provider)
    name = model.name if isinstance(model, Model) else str(model)
    if isinstance(model, Model) and save_to is None:
        model = with_fixed_draws(model)
    if isinstance(model, Model) and config.config.get(EXACT_INT8) == "1":
        model = split_shared_weights(model)
    stored = _stored_bytes(model)
    doing = foreign_call(f"{name}: onnxruntime loading it", _load_units(model, stored))
    providers = _providers(options, config)
    alone = copied or save_to is not None
    given = None if alone else _given_weights(model, config, options)
    source_of = _file_or_bytes(model, stored) if given is None else given.message
    with stage("loading models"), source_of as source, runtime_errors(name), doing:
        session = ort.InferenceSession(
            source,
            options,
            providers=providers,
            disabled_optimizers=list(config.disabled_optimizers) or None,
            enable_fallback=0,  # to the CPU, after printing why
        )
    check_started(session, config.provider)
    session.trimtab_name = name
    session.trimtab_arena = config.arena
    session.trimtab_bytes = stored
    session.trimtab_given = given  # which has to live as long
    return session


def _given_weights(model: Model | str | Path, config: SessionConfig, options: Any) -> Given | None:
    """Give weights to the options where no kernel writes over them, as those of exact int8 do."""
    may_share = config.provider == "CPUExecutionProvider" and config.config.get(EXACT_INT8) != "1"
    return given_weights(model, options) if isinstance(model, Model) and may_share else None


def _load_units(model: Model | str | Path, stored: int) -> float:
    """Return how much there is to load: 20 nodes or 10 MB are a unit, on a slow board too."""
    if isinstance(model, Model):
        return stored / 1e7 + model.graph.num_nodes() / 20
    return stored / 1e6


def _stored_bytes(model: Model | str | Path) -> int:
    if isinstance(model, Model):
        return model.weight_bytes
    return Path(model).stat().st_size if Path(model).is_file() else 0


def run_units(session: Any, feeds: Feeds, rows: int) -> float:
    """Return how much a run has to do: what rows took before, or a bound of its multiplications.

    A weight is used at most once an element that is fed, as a rule; a slow board does 0.2 G of that
    in a second.
    """
    elements = sum(getattr(array, "size", 1) for array in feeds.values())
    work = getattr(session, "trimtab_bytes", 0) / 4 * elements / 1e9
    known = 4 * getattr(session, "trimtab_seconds_each", 0.0) * rows
    return rows + min(work, _MOST_WORK) + known


@contextlib.contextmanager
def _file_or_bytes(model: Model | str | Path, stored: int) -> Iterator[str | bytes]:
    """Yield the bytes or the file to load; a model too large for one message goes via a file."""
    if not isinstance(model, Model):
        yield str(model)
    elif stored <= EXTERNAL_DATA_BYTES:
        yield model.to_bytes()
    else:
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            yield str(model.save(Path(folder) / "model.onnx"))


def _options(config: SessionConfig) -> Any:
    ort = runtime()

    levels = {
        "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
    if config.level not in levels:
        raise unknown("graph level", config.level, levels)
    options = ort.SessionOptions()
    options.graph_optimization_level = levels[config.level]
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = config.arena
    options.enable_mem_pattern = config.memory_pattern
    options.log_severity_level = 4  # trimtab reports these problems itself
    spinning = {"session.intra_op.allow_spinning": "1" if config.spinning else "0"}
    for key, value in (spinning | dict(config.config)).items():
        if key not in CONFIG_KEYS:
            raise unknown("session configuration key", key, CONFIG_KEYS)
        options.add_session_config_entry(key, str(value))
    return options


@functools.cache
def available_providers() -> tuple[str, ...]:
    """Return the execution providers of the installed onnxruntime."""
    return tuple(dict.fromkeys([*built_in_providers(), *plugin_names()]))


def _providers(options: Any, config: SessionConfig) -> list[tuple[str, dict[str, str]]] | None:
    """Return the providers of a session; None after adding a plug-in's device to its options."""
    plugin = is_plugin(config.provider)
    given = config.provider_options
    adapted = with_threads(config.provider, given, config.threads, plugin=plugin)
    if not plugin:
        return chain(config.provider, adapted, available_providers())
    devices, rest = chosen_devices(config.provider, adapted)
    options.add_provider_for_devices(devices, rest)
    return None


def run(
    session: Any,
    feeds: Feeds,
    outputs: Sequence[str] | None = None,
    *,
    only_needed: bool = False,
    quiet: bool = False,
) -> Outputs:
    """Run a session once and return the wanted outputs, all of them where None, by name.

    They are copies where the session has an arena: an array of onnxruntime's keeps all of it.

    With `only_needed` no node runs that the wanted outputs do not need; `quiet` runs may fail, and
    onnxruntime then logs nothing.

    Raises:
        RunError: onnxruntime refuses the feeds, or fails.
    """
    names = list(outputs) if outputs is not None else [o.name for o in session.get_outputs()]
    if not names:  # onnxruntime takes an empty list for all outputs
        return {}
    rows = max((len(a) for a in feeds.values() if getattr(a, "ndim", 0)), default=1)
    name = getattr(session, "trimtab_name", "model")
    options = _run_options(only_needed=only_needed, quiet=quiet)
    start = time.monotonic()
    calling = foreign_call(f"{name}: onnxruntime running it", run_units(session, feeds, rows))
    with stage("running models"), runtime_errors(name, feeds), calling:
        arrays = session.run(names, dict(feeds), options)
    each = (time.monotonic() - start) / max(rows, 1)
    session.trimtab_seconds_each = max(each, getattr(session, "trimtab_seconds_each", 0.0))
    arrays.reverse()
    return {name: as_array(arrays.pop(), own=session.trimtab_arena) for name in names}


def _run_options(*, only_needed: bool, quiet: bool) -> Any:
    if not (only_needed or quiet):
        return None
    ort = runtime()

    options = ort.RunOptions()
    options.only_execute_path_to_fetches = only_needed
    if quiet:
        options.log_severity_level = 4
    return options


def optimized_graph(model: Model | str | Path, config: SessionConfig | None = None) -> ir.Model:
    """Return the graph that onnxruntime runs at the configuration's level, fusions applied.

    Of a provider that compiles what it takes it is the graph that the provider is given.
    """
    config = config or SessionConfig()
    if compiles(config.provider):
        config = replace(
            config, provider="CPUExecutionProvider", provider_options={}, level="basic"
        )
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        path = Path(folder) / "running.onnx"
        build_session(model, config.for_one_run(model), save_to=path)
        # The weights are in the file itself, which is read whole: nothing stays mapped to it.
        return from_proto(onnx.load(path, load_external_data=False))
