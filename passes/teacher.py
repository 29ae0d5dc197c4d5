"""Teacher of a pass: the model whose answers another one learns or keeps."""

from __future__ import annotations

from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.model import Model

#: Name of the teacher that is the model a recipe started from.
ORIGINAL = "original"


def load_teacher(named: Model | str | None, ctx: Context, where: str) -> Model | None:
    """Return a teacher given as a model, by its file or as `original`; None where none is given.

    Raises:
        OptionError: it is `original` outside of a recipe.
        ModelError: its file is not one of a model.
    """
    if named is None or isinstance(named, Model):
        return named
    if named != ORIGINAL:
        return Model.load(named)
    if ctx.original is None:
        raise OptionError(
            "teacher is `original`, which does not exist outside of a recipe",
            where=where,
            hint="Name its file",
        )
    return ctx.original
