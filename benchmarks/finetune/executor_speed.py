"""Forward and backward of resnet56: the executor against the native module, interleaved.

    python benchmarks/finetune/executor_speed.py [--network resnet56] [--batch 32] [--rounds 10]

Both train the same graph: the exported one has BatchNormalization folded into its convolutions, so
the native side is the same network with its BatchNorm layers folded as well.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trimtab.core.model import Model
from trimtab.models import build
from trimtab.passes.training.torch_graph import to_module


def folded(network: torch.nn.Module) -> torch.nn.Module:
    for block in network.modules():
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            if isinstance(getattr(block, norm, None), torch.nn.BatchNorm2d):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, torch.nn.Identity())
    return network


def seconds(module: torch.nn.Module, x: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.backward(module(x).square().mean())
    spent = time.perf_counter() - start
    module.zero_grad()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    native = folded(build(args.network).eval()).train()
    x = torch.randn(args.batch, 3, 32, 32)
    program = torch.onnx.export(
        native.eval(),
        (torch.randn(2, 3, 32, 32),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    ours = to_module(Model.from_proto(program.model_proto, args.network))
    ours.train()
    native.train()
    difference = (ours(x) - native(x)).abs().max().item()
    for module in (ours, native):
        seconds(module, x)
    pairs = [(seconds(ours, x), seconds(native, x)) for _ in range(args.rounds)]
    ratios = sorted(a / b for a, b in pairs)
    print(f"largest difference of a logit {difference:.1e}")
    for name, column in (("executor", 0), ("native", 1)):
        print(f"{name:9} median {1000 * statistics.median(p[column] for p in pairs):.1f} ms")
    print(
        f"ratio median {statistics.median(ratios):.3f}, "
        f"quartiles {ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f}"
    )


if __name__ == "__main__":
    main()
