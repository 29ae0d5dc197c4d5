"""Export a PyTorch module to ONNX; the file appears once onnxruntime agrees with torch."""

from __future__ import annotations

import argparse
import shlex

SUMMARY = "export a PyTorch module to ONNX, parity proved"
EXAMPLE = "trimtab export mypackage.net:make_net --weights net.safetensors -o float.onnx"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "source", metavar="module:factory", help="callable that returns a torch.nn.Module"
    )
    parser.add_argument("-o", "--output", required=True, metavar="model.onnx")
    parser.add_argument("--weights", metavar="FILE", help="state dict: .pt or .safetensors")
    parser.add_argument(
        "--input",
        action="append",
        metavar="NAME=1x3x32x32:float32",
        help="an input; repeat for each (default: the module's example_inputs())",
    )
    parser.add_argument(
        "--dynamic",
        action="append",
        metavar="NAME=0:batch",
        help="dynamic axes of an input, with a range where it has one (1:n>=5); repeat for each "
        "(default: the batch axis of all)",
    )
    parser.add_argument("--output-name", action="append", metavar="NAME", help="repeat for each")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="rows to compare on; the first is the example without --input",
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        help="largest error relative to an output's largest value (default 1e-4)",
    )
    parser.add_argument("--opset", metavar="N", help="operator set (default 20)")
    parser.add_argument(
        "--trainable",
        action="store_true",
        help="keep BatchNormalization and Dropout as nodes, for finetune and distill",
    )
    parser.add_argument(
        "--locate", action="store_true", help="where parity fails, name the first node that differs"
    )


def execute(args: argparse.Namespace) -> int:
    """Export, check parity, write."""
    from trimtab.core.callables import import_callable
    from trimtab.core.dataset import Dataset
    from trimtab.core.fields import convert
    from trimtab.core.files import check_output_file, file_for
    from trimtab.core.progress import Stderr
    from trimtab.exporter import parse_dynamic, parse_input_spec, weights_file

    from ..report.lines import export_lines

    # All that can be wrong without torch, whose import takes seconds.
    options = {
        name: convert(kind, value, where=f"--{name}")
        for name, kind, value in (
            ("opset", int, args.opset),
            ("tolerance", float, args.tolerance),
        )
        if value
    }
    check_output_file(file_for(args.output, "model.onnx"))
    dynamic = parse_dynamic(*args.dynamic) if args.dynamic else None
    inputs = [parse_input_spec(text) for text in args.input] if args.input else None
    data = Dataset.open(args.data) if args.data else None
    if args.weights:
        weights_file(args.weights)
    import_callable(args.source)

    from trimtab.exporter import export, load_module

    model = export(
        load_module(args.source, args.weights),
        inputs,
        output_names=args.output_name,
        dynamic=dynamic,
        data=data,
        locate=args.locate,
        trainable=args.trainable,
        name=args.source,
        **options,
    )
    path = model.save(args.output)
    print("\n".join(export_lines(model, path)))  # noqa: T201
    Stderr().say(f"next: trimtab optimize {shlex.quote(str(path))} -o out --data DATA")
    return 0
