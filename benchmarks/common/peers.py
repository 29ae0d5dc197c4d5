"""Other tools' int8 in their best known settings, run in a Python of their own.

    PEERS_PYTHON benchmarks/common/peers.py TOOL FLOAT.onnx FEEDS_FOLDER OUT.onnx [--text]

Needs the tool, onnx, numpy and onnxruntime, and nothing of this project, whose pinned versions
these tools do not all bear. FEEDS_FOLDER holds an .npz of arrays by input name for each run of the
model. Scripts of the rooms quantize, real and optimize call it. To make such a Python:

    python -m venv peers
    peers/bin/pip install torch==2.13.0 onnxruntime==1.32.0 onnxsim nncf amd-quark olive-ai
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter

Feeds = list[dict[str, np.ndarray]]
Tool = Callable[[Path, Feeds, Path, bool], None]


def reader(feeds: Iterable[dict[str, Any]]) -> Any:
    """Return what onnxruntime's quantizers read rows from; a list is read again where they ask."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.reset_iter()

        def get_next(self) -> dict[str, Any] | None:
            return next(self.stream, None)

        def reset_iter(self) -> None:
            self.stream = iter(feeds)

    return Reader()


def nncf(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: FBT001
    import nncf as tool

    kind = tool.ModelType.TRANSFORMER if text else None
    made = tool.quantize(
        onnx.load(source), tool.Dataset(feeds), subset_size=len(feeds), model_type=kind
    )
    onnx.save(made, out)


def nncf_accuracy(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: FBT001
    """Leave float what costs most, until the outputs are alike within one percent."""
    import nncf as tool
    import onnxruntime

    def answers(model: onnx.ModelProto) -> list[list[np.ndarray]]:
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return [session.run(None, dict(one)) for one in feeds]

    expected = answers(onnx.load(source))

    def likeness(model: onnx.ModelProto, _: object) -> tuple[float, None]:
        pairs = [
            (e, a)
            for es, found in zip(expected, answers(model), strict=True)
            for e, a in zip(es, found, strict=True)
            if np.issubdtype(e.dtype, np.floating)
        ]
        return float(np.mean([cosine(e, a) for e, a in pairs])), None

    kind = tool.ModelType.TRANSFORMER if text else None
    made = tool.quantize_with_accuracy_control(
        onnx.load(source),
        tool.Dataset(feeds),
        tool.Dataset(feeds),
        likeness,
        max_drop=0.01,
        subset_size=len(feeds),
        model_type=kind,
    )
    onnx.save(made, out)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size else float(np.array_equal(a, b))


def quark(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: FBT001
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config.config import Config
    from quark.onnx.quantization.config.custom_config import get_default_config

    preset = "INT8_TRANSFORMER_DEFAULT" if text else "INT8_CNN_DEFAULT"
    config = Config(global_quant_config=get_default_config(preset))
    ModelQuantizer(config).quantize_model(str(source), str(out), reader(feeds))


def onnxsim(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: FBT001
    import onnxsim as tool
    from onnxsim.calibration import quantize_static

    model = onnx.load(source)
    made = tool.quantize_dynamic(model) if text else quantize_static(model, feeds, full_graph=True)
    onnx.save(made, out)


def olive(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: FBT001
    import tempfile

    from olive.data.config import DataConfig
    from olive.data.registry import Registry
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.passes.onnx.quantization import OnnxDynamicQuantization, OnnxStaticQuantization
    from torch.utils.data import DataLoader

    @Registry.register_dataset("of_feeds")
    def _dataset(**_: object) -> list[tuple[dict[str, np.ndarray], int]]:
        return [(one, 0) for one in feeds]

    @Registry.register_dataloader("one_run_each")
    def _loader(dataset: object, **_: object) -> DataLoader:
        return DataLoader(dataset, batch_size=None)  # each item is a whole batch

    data = DataConfig(
        name="feeds",
        type="DataContainer",
        load_dataset_config={"type": "of_feeds"},
        pre_process_data_config={"type": "skip_pre_process"},
        post_process_data_config={"type": "skip_post_process"},
        dataloader_config={"type": "one_run_each"},
    )
    # Its defaults make convolutions slower than float on x64: the settings of peers that do not.
    static = {"data_config": data, "per_channel": True, "calibrate_method": "MinMax"}
    kinds = {"activation_type": "uint8", "precision": "int8", "quant_format": "QDQ"}
    kind, fields = (
        (OnnxDynamicQuantization, {}) if text else (OnnxStaticQuantization, static | kinds)
    )
    step = create_pass_from_dict(kind, fields, disable_search=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = step.run(ONNXModelHandler(str(source)), str(Path(scratch) / "made.onnx"))
        onnx.save(onnx.load(made.model_path), out)


def onnxruntime_static(method: str, *, seven_bits: bool) -> Tool:
    """Return onnxruntime's static quantizer as its documentation advises, with a range method."""

    def quantize(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: FBT001
        from onnxruntime import quantization as tool
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = out.with_suffix(".prepared.onnx")
        try:
            quant_pre_process(source, prepared)
        except Exception:  # noqa: BLE001 - its inference of shapes fails for some files
            prepared = source
        tool.quantize_static(
            prepared,
            out,
            reader(feeds),
            per_channel=True,
            reduce_range=seven_bits,
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            calibrate_method=tool.CalibrationMethod[method],
            op_types_to_quantize=["MatMul", "Gemm"] if text else None,
        )

    return quantize


def onnxruntime_dynamic(source: Path, feeds: Feeds, out: Path, text: bool) -> None:  # noqa: ARG001, FBT001
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, out, per_channel=True, weight_type=QuantType.QInt8)


def at_least_opset_13(source: Path, out: Path) -> Path:
    """Return a file whose quantization can be per channel, converted by onnx where it is older."""
    model = onnx.load(source)
    if next(o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}) >= 13:
        return source
    try:
        onnx.save(onnx.version_converter.convert_version(model, 13), out)
    except Exception:  # noqa: BLE001 - it does not convert every operator
        return source
    return out


TOOLS: dict[str, Tool] = {
    **{
        f"onnxruntime-{method.lower()}{'-7bit' * seven}": onnxruntime_static(
            method, seven_bits=seven
        )
        for method in ("MinMax", "Percentile", "Entropy")
        for seven in (False, True)
    },
    "onnxruntime-dynamic": onnxruntime_dynamic,
    "nncf": nncf,
    "nncf-accuracy": nncf_accuracy,
    "quark": quark,
    "onnxsim": onnxsim,
    "olive": olive,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("source", type=Path)
    parser.add_argument("feeds", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", action="store_true", help="a transformer over tokens")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    feeds = [dict(np.load(path)) for path in sorted(args.feeds.glob("*.npz"))]
    source = at_least_opset_13(args.source, args.out.with_suffix(".13.onnx"))
    TOOLS[args.tool](source, feeds, args.out, args.text)


if __name__ == "__main__":
    main()
