"""Recipes: named tuples of passes, as YAML and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import yaml

from trimtab.core.callables import is_callable_spec
from trimtab.core.context import Context, check_seed
from trimtab.core.dataset import Dataset
from trimtab.core.documents import check_yaml, read_document
from trimtab.core.errors import InputError, ModelError, OptionError, nearest
from trimtab.core.fields import File, convert
from trimtab.core.files import write_text
from trimtab.core.model import Model
from trimtab.core.sources.opening import with_files
from trimtab.core.target import Target
from trimtab.passes import find
from trimtab.passes.base import Pass


@dataclass(frozen=True)
class Recipe:
    """A named tuple of passes; the same recipe on the same model gives the same bytes.

    Attributes:
        name: name in tables.
        passes: passes, applied in order.
        model: source that it was made for: a file or `module:callable`.
        digest: digest of that source; another one is refused.
        target: machine that the result will run on, so that another machine makes the same file.
        seed: random seed of the passes.
    """

    name: str
    passes: tuple[Pass, ...]
    model: str | None = None
    digest: str | None = None
    target: Target | None = None
    seed: int = 0

    def __call__(self, model: Model, ctx: Context | None = None) -> Model:
        """Apply the passes in order.

        Raises:
            ModelError: the recipe was made for another model.
        """
        if self.digest not in {None, model.digest}:
            raise ModelError(
                f"is not the model that recipe {self.name!r} was made for",
                where=model.name,
                hint="Use the original, or remove `digest` from the recipe to accept this one",
            )
        ctx = ctx or Context()
        target, seed = self.target or ctx.target, self.seed or ctx.seed
        ctx = replace(ctx, target=target, seed=seed, original=model)
        for step in self.passes:
            model = step(model, ctx)
        return model

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values; fields at their defaults are left out."""
        plain: dict[str, Any] = {"name": self.name}
        plain |= {k: v for k in ("model", "digest", "seed") if (v := getattr(self, k))}
        if self.target:
            plain["target"] = self.target.to_json()
        return plain | {"passes": [_pass_to_json(p) for p in self.passes]}

    @classmethod
    def from_json(cls, value: Any, *, where: str = "recipe", folder: Path | None = None) -> Recipe:
        """Read a recipe that `to_json` or a person wrote.

        Args:
            value: JSON values.
            where: name of the recipe in messages.
            folder: folder that files which it names are looked for in first.

        Raises:
            OptionError: an unknown pass or field; the nearest is suggested.
            InputError: it is not a recipe, or data that it names are not found.
        """
        if isinstance(value, list):
            value = {"passes": value}
        if not isinstance(value, Mapping) or not isinstance(value.get("passes"), list):
            hint = "Write a list `passes:`; see `trimtab passes`"
            raise InputError("is not a recipe", where=where, hint=hint)
        known = {field.name for field in fields(cls)}
        for key in value:
            if key not in known:
                raise OptionError(f"has no field {key!r}", where=where, hint=nearest(key, known))
        target = value.get("target")
        return cls(
            name=str(value.get("name", Path(where).stem)),
            passes=tuple(_pass_from_json(p, where, folder) for p in value["passes"]),
            model=_beside(convert(str | None, value.get("model"), where=f"{where}, model"), folder),
            digest=convert(str | None, value.get("digest"), where=f"{where}, digest"),
            target=None if target is None else convert(Target, target, where=f"{where}, target"),
            seed=check_seed(convert(int, value.get("seed", 0), where=f"{where}, seed"), where),
        )

    def to_yaml(self) -> str:
        """Return the recipe as YAML."""
        return yaml.safe_dump(self.to_json(), sort_keys=False, width=100)

    def save(self, path: str | Path) -> Path:
        """Write YAML to `path`, whole or not at all."""
        write_text(Path(path), self.to_yaml())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a YAML or JSON file. Files that it names are beside it, or in the current folder.

        Raises:
            InputError: no such file, not YAML, or data that it names are not found.
        """
        return cls.from_json(read_yaml(Path(path)), where=str(path), folder=Path(path).parent)


def read_yaml(path: Path) -> Any:
    """Read a YAML or JSON file.

    Raises:
        InputError: no such file, or not YAML; names the line.
    """
    text = read_document(path)
    try:
        check_yaml(text, str(path))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", error)
        raise InputError(f"is not YAML ({problem})", where=f"{path}{line}") from error


def _pass_to_json(step: Pass) -> Any:
    values = step.to_json()
    return {step.name(): values} if values else step.name()


def _pass_from_json(value: Any, where: str, folder: Path | None) -> Pass:
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, Mapping) or len(value) != 1:
        hint = "Write `- name` or `- name: {field: value}`"
        raise InputError(f"{value!r} is not a pass", where=where, hint=hint)
    ((name, options),) = value.items()
    if not isinstance(options or {}, Mapping):
        raise InputError(f"the fields of pass {name!r} are not a mapping", where=where)
    kind = find(str(name))
    return kind.from_json(_with_files(dict(options or {}), kind, where, folder))


def _with_files(
    options: dict[str, Any], kind: type[Pass], where: str, folder: Path | None
) -> dict[str, Any]:
    """Return the fields of a pass with files that are there beside the recipe, data among them."""
    for name, field in kind.fields().items():
        value = options.get(name)
        if Dataset in get_args(field.type):
            spec = value.get("data") if isinstance(value, Mapping) else value
            if isinstance(spec, str):
                found = with_files(spec, lambda name: str(_beside(name, folder)))
                _check_found(found, spec, where, folder)
                options[name] = {**value, "data": found} if isinstance(value, Mapping) else found
        elif field.text == get_args(File)[1] and isinstance(value, str):
            options[name] = _beside(value, folder)
    return options


def _beside(name: str | None, folder: Path | None) -> str | None:
    """Return the file of that name in a folder where there is one; else the name."""
    if not name or folder is None or is_callable_spec(name) or not (folder / name).exists():
        return name
    return str(folder / name)


def _check_found(spec: str, written: str, where: str, folder: Path | None) -> None:
    name = spec.partition("?")[0]
    if folder is None or is_callable_spec(name) or name.startswith("memory:"):
        return
    if not Path(name).exists() and not Path(spec).exists():
        raise InputError(
            f"names data {written!r}, which are neither in {folder.absolute()} nor in the current "
            f"folder, {Path.cwd()}",
            where=where,
            hint="Write the path from the recipe's folder",
        )
