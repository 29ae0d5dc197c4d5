"""Train a smaller model to answer as a larger one does.

The student is an .onnx file, pruned from the teacher or trained before, or module:callable, with
--weights where it has some. A module keeps its BatchNormalization and Dropout, which --batch-norm
trained lets it learn with from random weights on; simplify folds them away afterwards.
"""

from __future__ import annotations

import argparse

SUMMARY = "train a smaller model to answer as a larger one does"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command: those of the pass `recover`."""
    from trimtab.commands.one_pass import add_fields, add_surroundings
    from trimtab.passes import find

    parser.add_argument(
        "--teacher", required=True, metavar="T", help=".onnx file, or module:callable"
    )
    parser.add_argument(
        "--student", required=True, metavar="S", help=".onnx file, or module:callable"
    )
    parser.add_argument("--weights", metavar="FILE", help="a state dict for the student's module")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="file to write")
    add_fields(parser, find("recover"), "teacher")
    add_surroundings(parser)


def execute(args: argparse.Namespace) -> int:
    """Train, write, say what happened."""
    from pathlib import Path

    from trimtab.commands.one_pass import context, given_fields
    from trimtab.open_model import open_model
    from trimtab.passes import find
    from trimtab.report.lines import pass_lines
    from trimtab.search import check_output

    check_output(Path(args.output).parent)
    teacher = open_model(args.teacher)
    student = open_model(args.student, weights=args.weights, trainable=True)
    kind = find("recover")
    given = given_fields(args, kind)
    given.pop("teacher", None)
    how = kind.from_json(given).with_fields(teacher=teacher)
    after = how(student, context(args))
    path = after.save(args.output)
    print("\n".join(pass_lines(student, after, path)))  # noqa: T201
    return 0
