"""Tables of what providers take: a file for each target in `tables/`, with a source for each fact.

A file has the version that it was read from, the sources by a short name, and groups of operators.
A group has `names`, its `source`, and the conditions of `SupportRule` under which a node is taken;
an operator that no group has falls back. Facts about the whole model and int8 stand under `notes`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab.core.errors import InputError, unknown

#: Q/DQ pairs as operators of their own, in units with the operator between them, or not at all.
Pairs = Literal["operators", "units", "both", "none"]
_FOLDER = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class SupportRule:
    """Conditions under which a provider takes operators; inputs are numbered from 0.

    Attributes:
        names: operator types; those of other domains as `com.microsoft:Gelu`.
        source: short name of the source.
        since: least version of the operator's definition.
        until: greatest version of the operator's definition.
        ranks: ranks that an input may have, by input.
        types: element types that an input may have, by input; the table's own where empty.
        same: inputs whose integer types must equal that of the output, in a Q/DQ unit.
        constant: inputs that must be constant where they are given.
        single: inputs that must have one element, outside of a Q/DQ unit.
        inner: true where it may neither read an input of the model nor make an output.
        zero: inputs that must be constant zeros where they are given.
        absent: inputs that must not be given.
        attributes: values that an attribute may have, its default included.
        outputs: most outputs that are used.
        last_axis: true where the axis must be the last.
        unit: true where only a Q/DQ unit is taken, false where only a float node is.
        says: reason in words, instead of the one that is made of the condition.
    """

    names: tuple[str, ...]
    source: str
    since: int = 1
    until: int = 0
    ranks: Mapping[int, Sequence[int]] = field(default_factory=dict)
    types: Mapping[int, Sequence[str]] = field(default_factory=dict)
    same: Sequence[int] = ()
    constant: Sequence[int] = ()
    single: Sequence[int] = ()
    inner: bool = False
    zero: Sequence[int] = ()
    absent: Sequence[int] = ()
    attributes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    outputs: int = 0
    last_axis: bool = False
    unit: bool | None = None
    says: str = ""


@dataclass(frozen=True)
class Fact:
    """Fact about whole models or int8, and the short name of its source."""

    says: str
    source: str


@dataclass(frozen=True)
class SupportTable:
    """Facts about what a provider takes.

    Attributes:
        name: name of the target.
        title: provider and device in words.
        provider: onnxruntime's name of the provider.
        version: version that the facts were read from.
        read: day of reading.
        sources: addresses by short name.
        rules: groups of operators.
        fixed_shapes: source of the fact that free dimensions are refused; empty where they are not.
        types: element types that input 0 of an operator may have, where its group names none.
        pairs: how Q/DQ pairs are taken.
        units: operators that are taken between Q/DQ pairs; all where empty.
        fused: operators that go with one before them, by what may stand before.
        not_read: operators on which the sources say nothing.
        notes: facts about whole models.
        int8: facts about the int8 form that it wants.
        ask: options with which the provider itself is asked, where it is installed.
    """

    name: str
    title: str
    provider: str
    version: str
    read: str
    sources: Mapping[str, str]
    rules: tuple[SupportRule, ...]
    fixed_shapes: str = ""
    types: Sequence[str] = ()
    pairs: Pairs = "operators"
    units: Sequence[str] = ()
    fused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    not_read: frozenset[str] = frozenset()
    notes: tuple[Fact, ...] = ()
    int8: tuple[Fact, ...] = ()
    ask: Mapping[str, str] | None = None

    @functools.cached_property
    def by_operator(self) -> Mapping[str, SupportRule]:
        """Rules by operator."""
        return {name: rule for rule in self.rules for name in rule.names}


def table_names() -> list[str]:
    """Return the targets that have a table."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@functools.cache
def support_table(name: str) -> SupportTable:
    """Return the table of a target.

    Raises:
        OptionError: there is none of that name.
        InputError: its file is not valid.
    """
    import yaml

    if name not in table_names():
        raise unknown("target with a table", name, table_names())
    path = _FOLDER / f"{name}.yaml"
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return _table(name, read)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"is not a valid table: {error}", where=str(path)) from error


def _table(name: str, read: dict[str, Any]) -> SupportTable:
    rules = tuple(
        SupportRule(**{**group, "names": tuple(group["names"])}) for group in read.pop("operators")
    )
    notes, int8 = (tuple(Fact(**note) for note in read.pop(key, ())) for key in ("notes", "int8"))
    not_read = frozenset(read.pop("not_read", ()))
    table = SupportTable(name=name, rules=rules, notes=notes, int8=int8, not_read=not_read, **read)
    _check(table)
    return table


def _check(table: SupportTable) -> None:
    """Refuse an operator in two groups, and a fact whose source has no address."""
    listed = [name for rule in table.rules for name in rule.names]
    twice = {name for name in listed if listed.count(name) > 1}
    if twice:
        raise ValueError(f"{sorted(twice)} are in two groups")
    used = {rule.source for rule in table.rules}
    used |= {note.source for note in (*table.notes, *table.int8)}
    used |= {table.fixed_shapes} - {""}
    missing = used - set(table.sources)
    if missing:
        raise ValueError(f"{sorted(missing)} have no address under sources")
