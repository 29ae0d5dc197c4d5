"""Fields of a frozen dataclass as JSON, YAML and command-line options."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from .callables import import_callable
from .dataset import Dataset
from .errors import OptionError, nearest
from .model import Model
from .target import Target
from .units import share

#: Characters of a wrong value that a message shows.
_SHOWN = 200
#: Texts that are more than that, with the word for them: annotations of fields.
File = Annotated[str, "FILE"]
Folder = Annotated[str, "FOLDER"]
Duration = Annotated[str, "TIME"]


@dataclass(frozen=True)
class Field:
    """One field of a configuration.

    Attributes:
        name: as Python spells it; the command line has `-` for `_`.
        type: its annotation, resolved.
        default: its default value.
        help: its line of the class docstring.
        text: word for its text where that is more than one, as FILE; see `File`.
    """

    name: str
    type: Any
    default: Any
    help: str
    text: str = ""

    @property
    def option(self) -> str:
        """Command-line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_flag(self) -> bool:
        """True where it is a plain yes or no."""
        return self.type is bool

    @property
    def is_limits(self) -> bool:
        """True where it is one number, or one by name: `--max-drop map=0.01`, repeatable."""
        return {float, dict[str, float]} <= set(get_args(self.type))

    @property
    def choices(self) -> tuple[Any, ...]:
        """Values of a `Literal`, else nothing."""
        return tuple(
            value
            for part in (self.type, *get_args(self.type))
            if get_origin(part) is Literal
            for value in get_args(part)
        )

    @property
    def metavar(self) -> str:
        """Its value in the words of the command line, in every help, list and document."""
        kinds = [k for k in (self.type, *get_args(self.type)) if get_origin(k) is not None]
        origins = [get_origin(k) for k in kinds if get_origin(k) not in {Union, types.UnionType}]
        if self.choices:
            return self.type_name
        if self.text:
            return self.text
        if self.is_limits:
            return "X"
        if any(origin in _MAPPINGS for origin in origins):
            return "JSON"
        if any(origin is tuple or origin in _SEQUENCES for origin in origins):
            return "NAME,NAME"
        return next(
            (word for kind, word in _WORDS.items() if kind in (self.type, *get_args(self.type))),
            "VALUE",
        )

    @property
    def default_word(self) -> str:
        """Its default as the command line takes it; "" where it has none."""
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        if isinstance(self.default, tuple):
            return ",".join(map(str, self.default))
        return str(self.default) if self.default not in (None, {}) else ""

    @property
    def default_text(self) -> str:
        """Its default as the help shows it; "" where it has none, or is off."""
        word = "" if self.default is False else self.default_word
        return f"(default {word})" if word else ""

    @property
    def type_name(self) -> str:
        """Type as documentation writes it."""
        if self.choices:
            return "|".join(map(str, self.choices))
        text = str(self.type) if get_args(self.type) else getattr(self.type, "__name__", "")
        return re.sub(r"\b[a-z_]+\.(?:[a-z_]+\.)*", "", text)


@functools.cache
def fields_of(kind: type) -> dict[str, Field]:
    """Return the fields of a dataclass by name, with their documentation."""
    hints, extras = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    lines = attribute_lines(kind)
    return {
        f.name: Field(
            f.name, hints[f.name], _default(f), lines.get(f.name, ""), _text_word(extras[f.name])
        )
        for f in dataclasses.fields(kind)
        if f.init
    }


def _text_word(kind: Any) -> str:
    """Return the word of a text's annotation, by itself or as one of several types; "" for none."""
    parts = (kind, *get_args(kind))
    return next((str(p.__metadata__[0]) for p in parts if get_origin(p) is Annotated), "")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def attribute_lines(kind: type) -> dict[str, str]:
    """Read the `Attributes:` section of the docstrings of a class and its bases."""
    lines: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = (base.__doc__ or "").partition("Attributes:")
        for name, text in re.findall(r"\n {8}(\w+): ((?:.+(?:\n {12}.+)*))", section):
            lines[name] = re.sub(r"\s+", " ", text).strip()
    return lines


def to_plain(value: Any) -> Any:
    """Return a field's value as JSON: datasets by description, callables by `module:name`.

    A model in memory goes by its name.
    """
    if isinstance(value, Dataset | Target):
        return value.to_json()
    if isinstance(value, enum.Enum | Model):
        return value.name if isinstance(value, Model) else value.value
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return value


def check_values(made: Any, *, where: str) -> None:
    """Check each field of an instance against its annotation; what names data is opened.

    Raises:
        DataError: data cannot be opened.
        OptionError: a value of a wrong type, or one that is not among the choices.
    """
    kind: type = type(made)
    for field in fields_of(kind).values():
        value = getattr(made, field.name)
        if accepts(field.type, value):
            continue
        if Dataset in get_args(field.type) and isinstance(value, str | Path | Mapping):
            object.__setattr__(made, field.name, Dataset.of(value))  # made is frozen
            continue
        at = f"{where}, field {field.name!r}"
        if field.choices and isinstance(value, str):
            known = [str(choice) for choice in field.choices]
            raise OptionError(
                f"{value[:_SHOWN]!r} is not a valid choice", where=at, hint=nearest(value, known)
            )
        raise _wrong(value, field.type_name or "such a value", at)


def accepts(kind: Any, value: Any) -> bool:
    """Return whether a value is of an annotated type; what cannot be checked is."""
    origin, inner = get_origin(kind), get_args(kind)
    container = origin or kind
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in inner)
    elif origin in {Union, types.UnionType}:
        fits = any(accepts(option, value) for option in inner)
    elif kind is None or kind is type(None):
        fits = value is None
    elif kind in _NUMBERS:
        fits = _is_number(kind, value)
    elif container is tuple or container in _SEQUENCES:
        fits = isinstance(value, tuple | list)
        fits = fits and all(accepts(inner[0], v) for v in value if inner)
    elif container in _MAPPINGS:
        fits = isinstance(value, Mapping)
    elif container in _CALLABLES:
        fits = callable(value)
    elif isinstance(container, type) and not getattr(container, "_is_protocol", False):
        fits = isinstance(value, container)
    else:
        fits = True
    return fits


def _is_number(kind: Any, value: Any) -> bool:
    """Return whether a value is such a number: a whole one is a float too, and none is NaN."""
    flag = isinstance(value, bool | np.bool_)
    if not isinstance(value, _NUMBERS[kind]) or flag != (kind is bool):
        return False
    number: Any = value
    return not math.isnan(number)


#: Words of the help for values of a type.
_WORDS = {int: "N", float: "NUMBER", str: "TEXT", Dataset: "DATA", Target: "NAME", bool: "yes|no"}
_NUMBERS: dict[Any, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
}
_SEQUENCES = {list, get_origin(Sequence[Any])}
_MAPPINGS = {dict, get_origin(Mapping[str, Any])}
_CALLABLES = {get_origin(Callable[..., Any])}


def build(kind: type, values: Mapping[str, Any], *, where: str) -> Any:
    """Make an instance of a dataclass from JSON values or command-line texts.

    Raises:
        OptionError: an unknown field (the nearest is suggested) or a value of a wrong type.
    """
    known = fields_of(kind)
    ready: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise OptionError(f"has no field {key!r}", where=where, hint=nearest(name, known))
        ready[name] = convert(known[name].type, value, where=f"{where}, field {name!r}")
    return kind(**ready)


def convert(kind: Any, value: Any, *, where: str) -> Any:
    """Convert a JSON value or a text to type `kind`.

    Raises:
        OptionError: it is not such a value.
    """
    if kind is Any:
        return value
    return _READERS.get(get_origin(kind) or kind, _convert_instance)(kind, value, where)


def _convert_union(kind: Any, value: Any, where: str) -> Any:
    options = [k for k in get_args(kind) if k is not type(None)]
    if value is None or (isinstance(value, str) and value.lower() in {"none", "null"}):
        if len(options) < len(get_args(kind)):
            return None
        raise _wrong(value, "a value", where)
    error: OptionError | None = None
    for option in options:
        try:
            return convert(option, value, where=where)
        except OptionError as failed:
            error = error or failed
    raise error or _wrong(value, "a value", where)


def _convert_choice(kind: Any, value: Any, where: str) -> Any:
    for choice in get_args(kind):
        if value == choice or str(value) == str(choice):
            return choice
    raise OptionError(
        f"{value!r} is not a valid choice",
        where=where,
        hint=nearest(str(value), map(str, get_args(kind))),
    )


def _convert_sequence(kind: Any, value: Any, where: str) -> Any:
    element = (get_args(kind) or (Any,))[0]
    if isinstance(value, str):
        value = [part for part in value.split(",") if part]
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list", where)
    items = [convert(element, v, where=where) for v in value]
    return tuple(items) if get_origin(kind) is tuple else items


def _convert_target(kind: Any, value: Any, where: str) -> Target:  # noqa: ARG001
    if isinstance(value, Target):
        return value
    if isinstance(value, Mapping):
        made: Target = build(Target, {"name": "described", **value}, where=where)
        return made
    return Target.named(str(value))


def _convert_dataset(kind: Any, value: Any, where: str) -> Dataset:  # noqa: ARG001
    return value if isinstance(value, Dataset) else Dataset.from_json(value)


def _convert_mapping(kind: Any, value: Any, where: str) -> dict[str, Any]:  # noqa: ARG001
    if isinstance(value, str):  # from the command line
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _wrong(value, "a mapping in JSON", where) from None
    if isinstance(value, Mapping):
        return dict(value)
    raise _wrong(value, "a mapping", where)


def _convert_callable(kind: Any, value: Any, where: str) -> Any:  # noqa: ARG001
    return value if callable(value) else import_callable(str(value))


def _convert_bool(kind: Any, value: Any, where: str) -> bool:  # noqa: ARG001
    text = str(value).lower()
    if text in {"true", "yes", "1", "false", "no", "0"}:
        return text in {"true", "yes", "1"}
    raise _wrong(value, "true or false", where)


def _convert_number(kind: Any, value: Any, where: str) -> float:
    wanted = "a whole number" if kind is int else "a number"
    if isinstance(value, bool):
        raise _wrong(value, wanted, where)
    try:
        number = share(value) if kind is float and isinstance(value, str) else float(value)
        exact = kind is float or number == int(number)
    except (TypeError, ValueError, OverflowError, OptionError):
        raise _wrong(value, wanted, where) from None
    if not exact or not math.isfinite(number):
        raise _wrong(value, wanted, where)
    return int(number) if kind is int else number


def _convert_instance(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _wrong(value, f"a {getattr(kind, '__name__', kind)}", where)


def _wrong(value: Any, wanted: str, where: str) -> OptionError:
    text = repr(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return OptionError(f"{shown} is not {wanted}", where=where)


_READERS: dict[Any, Callable[[Any, Any, str], Any]] = {
    Union: _convert_union,
    types.UnionType: _convert_union,
    Literal: _convert_choice,
    tuple: _convert_sequence,
    list: _convert_sequence,
    dict: _convert_mapping,
    get_origin(Mapping[str, Any]): _convert_mapping,
    get_origin(Callable[..., Any]): _convert_callable,
    Target: _convert_target,
    Dataset: _convert_dataset,
    bool: _convert_bool,
    int: _convert_number,
    float: _convert_number,
}
