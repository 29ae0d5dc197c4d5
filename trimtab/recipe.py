"""Recipes: named tuples of passes, as YAML and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trimtab.core.context import Context
from trimtab.core.errors import InputError, OptionError
from trimtab.core.files import write_text
from trimtab.core.model import Model
from trimtab.passes import find
from trimtab.passes.base import Pass


@dataclass(frozen=True)
class Recipe:
    """A named tuple of passes; the same recipe on the same model gives the same bytes.

    Attributes:
        name: for tables.
        passes: applied in order.
        source: digest of the model that it was made for, where there was one.
        seed: of everything random in the passes.
        target: the target's fields, so that another machine makes the same file.
    """

    name: str
    passes: tuple[Pass, ...]
    source: str | None = None
    seed: int = 0
    target: Mapping[str, Any] | None = None

    def __call__(self, model: Model, ctx: Context | None = None) -> Model:
        """Apply the passes in order."""
        for step in self.passes:
            model = step(model, ctx)
        return model

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        plain: dict[str, Any] = {"name": self.name}
        if self.source:
            plain["source"] = self.source
        if self.target:
            plain["target"] = dict(self.target)
        if self.seed:
            plain["seed"] = self.seed
        return plain | {"passes": [_pass_to_json(p) for p in self.passes]}

    @classmethod
    def from_json(cls, value: Any, *, where: str = "recipe") -> Recipe:
        """The recipe that `to_json` wrote, or that somebody wrote by hand.

        Raises:
            OptionError: an unknown pass or field; the nearest is suggested.
            InputError: it is no recipe.
        """
        if isinstance(value, list):
            value = {"passes": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("passes"), list):
            raise InputError(
                "is no recipe", where=where, hint="Write a list `passes:`; see `trimtab passes`"
            )
        unknown = set(value) - {"name", "source", "seed", "target", "passes"}
        if unknown:
            raise OptionError(f"has no field {sorted(unknown)[0]!r}", where=where)
        return cls(
            name=str(value.get("name", Path(where).stem)),
            passes=tuple(_pass_from_json(p, where) for p in value["passes"]),
            source=value.get("source"),
            seed=int(value.get("seed", 0)),
            target=value.get("target"),
        )

    def to_yaml(self) -> str:
        """The recipe as YAML."""
        return yaml.safe_dump(self.to_json(), sort_keys=False, width=100)

    def save(self, path: str | Path) -> Path:
        """Write YAML to `path`, whole or not at all."""
        write_text(Path(path), self.to_yaml())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a YAML or JSON file.

        Raises:
            InputError: no such file, or no YAML.
        """
        path = Path(path)
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError("no such file", where=str(path), hint="Check the path") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error})", where=str(path)) from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", error)
            raise InputError(f"is no YAML ({problem})", where=f"{path}{line}") from error
        return cls.from_json(value, where=str(path))


def _pass_to_json(step: Pass) -> Any:
    values = step.to_json()
    return {step.name(): values} if values else step.name()


def _pass_from_json(value: Any, where: str) -> Pass:
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise InputError(
            f"{value!r} is no pass", where=where, hint="Write `- name` or `- name: {field: value}`"
        )
    ((name, fields),) = value.items()
    return find(str(name)).from_json(fields or {})


def recipe_of(passes: Iterable[Pass], name: str) -> Recipe:
    """A recipe of these passes."""
    return Recipe(name, tuple(passes))
