"""Apply the passes of a recipe, in order; the same model gives the same bytes."""

from __future__ import annotations

import argparse

SUMMARY = "apply a recipe"
EXAMPLE = "trimtab run out/recipe.yaml float.onnx -o again.onnx"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from .one_pass import add_context_options

    text = "recipe, or the folder that optimize wrote; its files are beside it, or in this folder"
    parser.add_argument("recipe", metavar="recipe.yaml", help=text)
    text = "model to use instead of the recipe's own"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=text)
    text = "folder to write, of model and recipe; or FILE.onnx, the model alone"
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=text)
    parser.add_argument("--force", action="store_true", help="let the output replace the input")
    add_context_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Make the model."""
    from pathlib import Path

    from trimtab.core.errors import InputError
    from trimtab.core.files import STDOUT, check_output_file, in_folder
    from trimtab.core.text import bytes_text

    from ..open_model import open_model
    from ..search.recipe import Recipe
    from ..search.reporting.folder import check_output
    from .one_pass import context

    recipe = Recipe.load(in_folder(args.recipe, "recipe.yaml"))
    source = args.model or recipe.model
    if source is None:
        raise InputError("names no model", where=args.recipe, hint="Give MODEL after the recipe")
    output, alone = Path(args.output), args.output.endswith(".onnx") or args.output in STDOUT
    if alone:
        check_output_file(output, *([] if args.force else [source]), parents=True)
    else:
        check_output(output, source, force=args.force)
    model = recipe(open_model(source), context(args))
    path = model.save(output if alone else output / "model.onnx")
    if not alone:
        recipe.save(output / "recipe.yaml")
    print(f"{source} -> {path}: {bytes_text(model.size_bytes)}")  # noqa: T201
    return 0
