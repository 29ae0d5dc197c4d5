"""Values that passes have computed or measured, kept for the passes that follow in a context."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

V = TypeVar("V")


@dataclass(frozen=True)
class MemoKind(Generic[V]):
    """A kind of values that a memo keeps.

    Attributes:
        name: unique name of the kind.
        limit: number of values that are kept; the oldest make room for new ones.
    """

    name: str
    limit: int


class ByIdentity:
    """Key that equals another only where both stand for the same object.

    It holds a reference: the number that `id` returns may pass to another object later.
    """

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


class Memo:
    """Bounded cache in memory, with a table for each kind of values."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Hashable, Any]] = {}

    def get(self, kind: MemoKind[V], key: Hashable) -> V | None:
        """Return the value of a key, None where it is not kept."""
        return cast("V | None", self._tables.get(kind.name, {}).get(key))

    def put(self, kind: MemoKind[V], key: Hashable, value: V) -> None:
        """Keep a value, dropping the oldest beyond the kind's limit."""
        table = self._tables.setdefault(kind.name, {})
        table.pop(key, None)
        table[key] = value
        while len(table) > kind.limit:
            del table[next(iter(table))]

    def items(self, kind: MemoKind[V]) -> list[tuple[Hashable, V]]:
        """Return all keys of a kind with their values, the oldest first."""
        return list(self._tables.get(kind.name, {}).items())
