"""Train a smaller model to imitate a larger one.

The student is an .onnx file, which starts from its weights; module:callable, which starts at random
or from --weights; or pruned:0.5, the teacher with half of its multiply-accumulates left. A module
keeps its BatchNormalization and Dropout for training; with random weights --batch-norm is `trained`
by default, and folded into the layers before it at the end, and the default --learning-rate is ten
times that for a trained model.

Where a student is much smaller than its teacher, --through names students of falling size between
them: each learns from the one before (Mirzadeh et al., "Teacher assistant", 2020).
"""

from __future__ import annotations

import argparse

SUMMARY = "train a smaller model to imitate a larger one"
EXAMPLE = "trimtab distill --teacher float.onnx --student pruned:0.5 -o small.onnx --data train.npz"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: those of the pass `finetune`."""
    from trimtab.passes import find

    from .one_pass import add_context_options, add_fields, add_output

    add = parser.add_argument
    text = ".onnx file, module:callable, or pruned:SHARE of the teacher's multiply-accumulates"
    add("--teacher", required=True, metavar="T", help=".onnx file, or module:callable")
    add("--student", required=True, metavar="S", help=text)
    add("--weights", metavar="FILE", help="file of a state dict for the student's module")
    text = "intermediate students, the largest first, as --student"
    add("--through", metavar="S,...", help=text)
    add_output(parser)
    add_fields(parser, find("finetune"), "teacher")
    add_context_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Train, write, and print the result."""
    from trimtab.passes import find

    from ..open_model import open_model
    from ..report.pass_outcome import PassOutcome
    from ..students import Student, distill_in_steps
    from .one_pass import check_output_of, context, parsed_fields, write

    check_output_of(args, args.teacher, args.student)
    kind = find("finetune")
    fields = parsed_fields(args, kind)
    fields.pop("teacher", None)
    how = kind.from_json(fields)
    way = [Student(spec) for spec in (args.through or "").split(",") if spec]
    students = [*way, Student(args.student, args.weights)]
    before, after = distill_in_steps(open_model(args.teacher), students, how, context(args))
    return write(PassOutcome.of(before, after), args)
