"""MobileNetV2 quantized dynamically, statically, and with quantization-aware training.

    python -m examples.mobilenet_v2_quantize [--width 1.0] [--data pictures.npz]

Dynamic quantization measures the range of an activation while the model runs, which suits matrix
products; onnxruntime's integer convolution for it is slower than the float one, so only the file
gains. Static quantization fixes the ranges on calibration data. With one scale for a whole weight
tensor it hurts this network, whose depthwise filters differ widely in range; one scale a channel
fixes most, and training through the rounding (learned step sizes; Esser et al., 2020) the rest.
"""

from __future__ import annotations

import argparse

import trimtab
from examples.pictures import (
    Pictures,
    context,
    input_of,
    options,
    pictures_of,
    print_table,
    trained,
)
from trimtab.core.progress import Stderr
from trimtab.models import mobilenet_v2
from trimtab.passes import Finetune, QuantizeDynamic, QuantizeStatic, Simplify


def make_models(pictures: Pictures, args: argparse.Namespace) -> dict[str, trimtab.Model]:
    """Make the models, in the order of the table."""
    network = trained(
        lambda: mobilenet_v2(pictures.classes, args.width, cifar=args.size < 64), pictures, args
    )
    ctx = context(pictures, args.seed, Stderr())
    original = Simplify()(trimtab.export(network, input_of(pictures), name="mobilenet_v2"), ctx)
    one_scale = QuantizeStatic(per_channel=False, ranges="minmax")(original, ctx)
    train = Finetune(teacher=original, epochs=args.finetune, batch=args.batch, augment="shift")
    return {
        "mobilenet_v2": original,
        "dynamic, products": QuantizeDynamic()(original, ctx),
        "dynamic, all": QuantizeDynamic(convs=True)(original, ctx),
        "static, a scale a tensor": one_scale,
        "  trained through it": train(one_scale, ctx),
        "static, a scale a channel": QuantizeStatic()(original, ctx),
    }


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Make the models and print their table; return their top-1 by name."""
    args = options(__doc__).parse_args(argv)
    pictures = pictures_of(args)
    return print_table(make_models(pictures, args), pictures, args.seconds)


if __name__ == "__main__":
    main()
