"""Apply the passes of a recipe, in order; the same model gives the same bytes."""

from __future__ import annotations

import argparse

SUMMARY = "apply a recipe"
EXAMPLE = "trimtab run out/recipe.yaml float.onnx -o again.onnx"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from .one_pass import add_context_options

    parser.add_argument("recipe", metavar="recipe.yaml")
    text = "model to use instead of the recipe's own"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=text)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="let the output replace the input")
    add_context_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Make the model."""
    from pathlib import Path

    from trimtab.core.errors import InputError
    from trimtab.core.text import bytes_text

    from ..open_model import open_model
    from ..search.recipe import Recipe
    from ..search.reporting.folder import check_output
    from .one_pass import context

    recipe = Recipe.load(args.recipe)
    source = args.model or recipe.model
    if source is None:
        raise InputError("names no model", where=args.recipe, hint="Give MODEL after the recipe")
    check_output(args.output, source, force=args.force)
    path = recipe(open_model(source), context(args)).save(Path(args.output) / "model.onnx")
    recipe.save(Path(args.output) / "recipe.yaml")
    print(f"{source} -> {path}: {bytes_text(path.stat().st_size)}")  # noqa: T201
    return 0
