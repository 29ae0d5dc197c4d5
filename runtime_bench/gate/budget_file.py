"""Reader of budgets.yaml: strict, and every error names its line.

    model: out/model.onnx
    baseline: float.onnx      # for speedup and drop
    data: eval.npz            # for drop, and as inputs
    metric: top1
    threads: 1
    provider: openvino        # default cpu; with options openvino:device_type=GPU
    baseline_provider: cpu    # of the baseline, where it is not the model's
    shape: {input: 1x3x224x224}
    preprocess: {resize: letterbox:640, colour: bgr, scale: 1}  # of a folder of pictures
    budgets: {p95: 5ms, speedup: 1.5, size: 4MB, drop: 0.01}  # or drop: {map: 1%, miou: 0.02}

    command: python new.py    # or `callable: pipeline:run`, instead of `model:`; runs in the
    baseline: python old.py   # file's own folder, and so does what it is compared with
    budgets: {p95: 900ms, speedup: 1.1}

Several documents, or a list under `gates:`, are several gates; keys beside `gates:` are defaults
for all. Paths are relative to the file's own folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from trimtab.core.callables import is_callable_spec
from trimtab.core.documents import read_document
from trimtab.core.errors import InputError, OptionError, TrimtabError, nearest
from trimtab.core.fields import convert
from trimtab.core.ort.engines import Engine
from trimtab.core.sources.opening import with_files, with_options
from trimtab.core.sources.preprocess import Preprocess
from trimtab.core.target import check_threads
from trimtab.core.units import shape

from ..bench.budgets import (
    LOSS_OF,
    SUBJECT_KINDS,
    Budget,
    Gate,
    SubjectKind,
    check,
    fraction,
)
from ..measure.contenders.programs import PROGRAMS
from .yaml_lines import Entry, documents

TEXT_KEYS = ("name", "model", *PROGRAMS, "baseline", "data", "metric")
ENGINE_KEYS = ("provider", "baseline_provider")
KEYS = (*TEXT_KEYS, *ENGINE_KEYS, "threads", "shape", "preprocess", "resolution", "on", "budgets")
#: Keys that only models have.
OF_MODELS = ("data", "metric", *ENGINE_KEYS, "threads", "shape", "preprocess", "on")
T = TypeVar("T")
#: Function from a line number to the `where` of an error.
At = Callable[[int], str]


def load_gates(path: str | Path) -> list[Gate]:
    """Read the gates of a file, resolve their paths and check that their files exist.

    Raises:
        InputError: the file cannot be read, is empty, or is not valid; with its line.
    """
    path = Path(path)
    text = read_document(path)
    return [_with_files(gate, path) for gate in parse_gates(text, str(path))]


def parse_gates(text: str, where: str = "budgets.yaml") -> list[Gate]:
    """Parse gates from text, without looking for their files.

    Raises:
        InputError: see `load_gates`.
    """
    gates = [gate for document in documents(text, where) for gate in _gates_of(document, where)]
    if not gates:
        raise InputError(
            "has no gate", where=where, hint="Write `model: FILE` and `budgets: {p95: 5ms}`"
        )
    return gates


def _gates_of(document: Entry, where: str) -> list[Gate]:
    shared: dict[str, Entry] = {}
    if isinstance(document.value, dict) and "gates" in document.value:
        shared = {k: v for k, v in document.value.items() if k != "gates"}
        listed = document.value["gates"]
        if not isinstance(listed.value, list) or not listed.value:
            raise InputError(
                "`gates:` is not a list, or is empty",
                where=f"{where}, line {listed.line}",
                hint="Write `- model: FILE` lines under it",
            )
        entries = listed.value
    else:
        entries = document.value if isinstance(document.value, list) else [document]
    return [_gate(entry, shared, where) for entry in entries]


def _gate(entry: Entry, shared: Mapping[str, Entry], where: str) -> Gate:
    def at(line: int) -> str:
        return f"{where}, line {line or entry.line}"

    if not isinstance(entry.value, dict):
        raise InputError(
            "is not a gate", where=at(entry.line), hint="Write `model: FILE` and `budgets: {...}`"
        )
    fields = {**shared, **entry.value}
    for key, value in fields.items():
        if key not in KEYS:
            told = nearest(key, KEYS)
            if "schema" in fields:  # what commands write
                told = "This is a result; give the budgets.yaml that `optimize` wrote beside it"
            raise InputError(f"unknown key {key!r}", where=at(value.line), hint=told)
    subject = _subject(fields, at)
    for wanted in (subject, "budgets"):
        if wanted not in fields or fields[wanted].value is None:
            example = "{p95: 5ms, size: 4MB}" if wanted == "budgets" else "out/model.onnx"
            raise InputError(
                f"this gate has no `{wanted}:`",
                where=at(entry.line),
                hint=f"Add `{wanted}: {example}`",
            )
    texts = {key: _text(key, fields[key], at) for key in TEXT_KEYS if key in fields}
    budgets = _budgets(fields["budgets"], texts.get("baseline", ""), at)
    named = next((b.against for b in budgets if b.name == "provider"), "CPUExecutionProvider")
    engine = _optional(fields, "provider", _engine, at) or Engine(named)
    gate = Gate(
        name=texts.get("name", texts[subject]),
        model=texts[subject],
        budgets=budgets,
        baseline=texts.get("baseline"),
        data=_prepared(texts.get("data"), fields, at),
        metric=texts.get("metric"),
        provider=engine.provider,
        provider_options=engine.options,
        baseline_engine=_optional(fields, "baseline_provider", _engine, at),
        threads=_optional(fields, "threads", _threads, at),
        shapes=_optional(fields, "shape", _shapes, at) or {},
        resolution=_optional(fields, "resolution", _resolution, at) or Gate.resolution,
        on=_devices(fields.get("on"), at),
        where=at(entry.line),
        subject=subject,
    )
    return check(gate, at)


def _subject(fields: Mapping[str, Entry], at: At) -> SubjectKind:
    """Return the key that says what the gate is about, of which there may be one.

    Raises:
        InputError: there are two, or a key of models beside a program.
    """
    given: list[SubjectKind] = [kind for kind in SUBJECT_KINDS if kind in fields]
    if len(given) > 1:
        raise InputError(
            f"has both `{given[0]}:` and `{given[1]}:`",
            where=at(fields[given[1]].line),
            hint="Make two gates of it",
        )
    subject = given[0] if given else "model"
    wrong = next((key for key in OF_MODELS if key in fields), None)
    if subject != "model" and wrong is not None:
        raise InputError(
            f"`{wrong}:` is about models, and this gate is about a {subject}",
            where=at(fields[wrong].line),
            hint="Remove it; a program feeds itself",
        )
    return subject


def _prepared(data: str | None, fields: Mapping[str, Entry], at: At) -> str | None:
    """Return the name of the data with the options of the block `preprocess:`."""
    entry = fields.get("preprocess")
    if entry is None:
        return data
    with _on_line(at, entry.line, "preprocess"):
        if data is None or not isinstance(entry.value, dict):
            raise OptionError("is not a mapping beside `data:`", hint="Write {resize: crop:224}")
        options = {key: _listed(value.value) for key, value in entry.value.items()}
        Preprocess.of(options, "preprocess")
        return with_options(data, options.items())


def _listed(value: Any) -> str:
    return ",".join(str(v.value) for v in value) if isinstance(value, list) else str(value)


def _text(key: str, entry: Entry, at: At) -> str:
    if not isinstance(entry.value, str) or not entry.value.strip():
        raise InputError(f"`{key}:` is not text", where=at(entry.line), hint="Write a name or path")
    return entry.value


def _devices(entry: Entry | None, at: At) -> tuple[str, ...]:
    if entry is None:
        return ()
    listed = entry.value if isinstance(entry.value, list) else [entry]
    if not all(isinstance(item.value, str) and item.value.strip() for item in listed):
        hint = "Write `on: [pi5, orin-nano]`"
        raise InputError("`on:` does not name a device", where=at(entry.line), hint=hint)
    return tuple(dict.fromkeys(item.value for item in listed))


def _budgets(entry: Entry, baseline: str, at: At) -> tuple[Budget, ...]:
    if not isinstance(entry.value, dict) or not entry.value:
        raise InputError(
            "`budgets:` is not a mapping, or is empty",
            where=at(entry.line),
            hint="Write {p95: 5ms, size: 4MB}",
        )
    found: list[Budget] = []
    for name, value in entry.value.items():
        if name == "tolerance":
            continue
        against = baseline if name == "speedup" else ""
        with _on_line(at, value.line, name):
            if name == "drop" and isinstance(value.value, dict) and value.value:
                found += [
                    Budget.of(f"drop{LOSS_OF}{metric}", limit.value, line=limit.line)
                    for metric, limit in value.value.items()
                ]
                continue
            if isinstance(value.value, dict | list):
                raise OptionError("has more than one value", hint=f"Write `{name}: VALUE`")
            found.append(Budget.of(name, value.value, against=against, line=value.line))
    tolerance = entry.value.get("tolerance")
    if tolerance is None:
        return tuple(found)
    if all(b.name != "no_slower_than" for b in found):
        raise InputError(
            "`tolerance:` belongs to `no_slower_than:`, which is missing",
            where=at(tolerance.line),
            hint="Add `no_slower_than: previous.onnx`, or remove it",
        )
    with _on_line(at, tolerance.line, "tolerance"):
        allowed = fraction(tolerance.value)
    return tuple(replace(b, tolerance=allowed) if b.name == "no_slower_than" else b for b in found)


@contextlib.contextmanager
def _on_line(at: At, line: int, key: str) -> Iterator[None]:
    """Add the line of a value to an error about it."""
    try:
        yield
    except TrimtabError as error:
        what = error.what if error.what.startswith("unknown") else f"{key}: {error.what}"
        raise InputError(what, where=at(line), hint=error.hint) from error


def _optional(fields: Mapping[str, Entry], key: str, parse: Callable[[Any], T], at: At) -> T | None:
    entry = fields.get(key)
    if entry is None:
        return None
    with _on_line(at, entry.line, key):
        return parse(entry.value)


def _engine(value: Any) -> Engine:
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{value!r} is not a provider", hint="Write it as openvino")
    return Engine.of(value)


def _threads(value: Any) -> int:
    threads: int = convert(int, value, where="")
    if threads < 1:
        raise OptionError(f"{threads} is not above 0", hint="Leave it out for all usable CPUs")
    check_threads(threads)
    return threads


def _resolution(value: Any) -> float:
    resolution = fraction(value)
    if not 0 < resolution < 1:
        raise OptionError(f"{value!r} is not above 0", hint="Write it as 0.05")
    return resolution


def _shapes(value: Any) -> dict[str, tuple[int, ...]]:
    if isinstance(value, dict):
        texts = {f"{name}={_sizes(e.value)}" for name, e in value.items()}
    else:
        texts = {str(e.value) for e in value} if isinstance(value, list) else {str(value)}
    return dict(shape(text) for text in sorted(texts))


def _sizes(value: Any) -> str:
    return "x".join(str(d.value) for d in value) if isinstance(value, list) else str(value)


def _with_files(gate: Gate, path: Path) -> Gate:
    """Resolve paths against the budget file's folder.

    Raises:
        InputError: a file is missing.
    """
    if gate.subject != "model":
        return _with_programs(gate, path)

    def found(name: str | None) -> str | None:
        if name is None:
            return None
        plain, mark, _ = name.partition("?")
        file = path.parent / name
        if mark and not file.exists():
            file = path.parent / plain
        if not file.exists():
            if is_callable_spec(plain):
                return name
            raise InputError(
                f"no such file: {file}",
                where=gate.where,
                hint=f"Paths are relative to {path.parent.resolve()}, the folder of {path.name}",
            )
        if file == path.parent / name:
            return str(file)
        return with_files(name, lambda n: str(path.parent / n) if (path.parent / n).exists() else n)

    budgets = tuple(
        replace(b, against=found(b.against) or "") if b.kind == "ratio" else b for b in gate.budgets
    )
    return replace(
        gate,
        model=found(gate.model) or gate.model,
        baseline=found(gate.baseline),
        data=found(gate.data),
        budgets=budgets,
    )


def _with_programs(gate: Gate, path: Path) -> Gate:
    """Name the folder in which the programs run, after a check that each of them can be started.

    Raises:
        InputError: a program is missing or not valid.
    """
    folder = str(path.parent)
    texts = [gate.model, *(b.against for b in gate.of_kind("ratio"))]
    for text in texts:
        try:
            PROGRAMS[gate.subject](text, folder)
        except OptionError as error:
            raise InputError(str(error), where=gate.where) from error
    return replace(gate, folder=folder)
