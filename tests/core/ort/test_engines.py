"""Engines as people write them, provider packages, and the options that providers are given."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from trimtab.core.errors import OptionError
from trimtab.core.ort import builds, plugins
from trimtab.core.ort.accelerators import CPU, CUDA, OPENVINO, XNNPACK
from trimtab.core.ort.engines import Engine, engine_config
from trimtab.core.ort.inventory import inventory
from trimtab.core.ort.provider_options import with_threads


@pytest.mark.parametrize(
    ("text", "provider", "options", "short"),
    [
        ("cpu", CPU, {}, "cpu"),
        ("CUDAExecutionProvider", CUDA, {}, "cuda"),
        (
            "OpenVINO:device_type=GPU, precision=f16",
            OPENVINO,
            {"device_type": "GPU", "precision": "f16"},
            "openvino:device_type=GPU,precision=f16",
        ),
        ("Unknown", "Unknown", {}, "Unknown"),
    ],
)
def test_engines_are_read_and_written(text, provider, options, short) -> None:
    engine = Engine.of(text)
    assert (engine.provider, engine.options, str(engine)) == (provider, options, short)
    assert Engine.of(str(engine)) == engine


def test_options_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(OptionError, match="'GPU' is not an option"):
        Engine.of("openvino:GPU")


def test_a_configuration_has_provider_and_options() -> None:
    config = engine_config("openvino:device_type=GPU", 2)
    assert (config.provider, config.provider_options) == (OPENVINO, {"device_type": "GPU"})
    assert engine_config(None, 3).provider == CPU


def test_openvino_gets_the_threads_and_float32_of_the_session() -> None:
    built_in = with_threads(OPENVINO, {}, 2, plugin=False)
    assert built_in == {"num_of_threads": "2", "device_type": "CPU", "precision": "FP32"}
    properties = json.loads(with_threads(OPENVINO, {}, 2, plugin=True)["load_config"])
    assert properties == {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "2"}}
    half = with_threads(OPENVINO, {"precision": "bf16"}, 1, plugin=False)
    assert json.loads(half["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}
    assert with_threads(OPENVINO, {"device_type": "GPU"}, 2, plugin=True) == {"device_type": "GPU"}
    assert with_threads(XNNPACK, {}, 4, plugin=False) == {"intra_op_num_threads": "4"}
    assert with_threads(CUDA, {"a": "b"}, 4, plugin=False) == {"a": "b"}


@pytest.mark.parametrize("options", [{"precision": "f9"}, {"presicion": "f16"}])
def test_what_openvino_does_not_have_is_refused(options) -> None:
    with pytest.raises(OptionError, match=r"f9|Did you mean 'precision'"):
        with_threads(OPENVINO, options, 1, plugin=True)


def device(kind: str) -> SimpleNamespace:
    return SimpleNamespace(
        ep_metadata={"ov_device": kind, "FULL_DEVICE_NAME": f"some {kind}"},
        device=SimpleNamespace(type=SimpleNamespace(name=kind), vendor="Intel"),
    )


def test_a_device_is_chosen_by_its_type(monkeypatch) -> None:
    monkeypatch.setattr(plugins, "plugin_devices", lambda _: (device("CPU"), device("GPU")))
    (found,), rest = plugins.chosen_devices(OPENVINO, {"device_type": "gpu", "a": "b"})
    assert found.ep_metadata["ov_device"] == "GPU"
    assert rest == {"a": "b"}
    with pytest.raises(OptionError, match=r"no device of type NPU.*CPU, some CPU; GPU, some GPU"):
        plugins.chosen_devices(OPENVINO, {"device_type": "NPU"})


def test_a_provider_without_a_device_says_so(monkeypatch) -> None:
    plugin = plugins.Plugin(OPENVINO, "onnxruntime-ep-openvino 1", "lib")
    monkeypatch.setattr(plugins, "installed_plugins", lambda: {OPENVINO: plugin})
    monkeypatch.setattr(plugins, "plugin_devices", lambda _: ())
    with pytest.raises(OptionError, match="onnxruntime-ep-openvino 1 finds no device here"):
        plugins.chosen_devices(OPENVINO, {})


def test_a_library_that_does_not_load_is_one_message(monkeypatch) -> None:
    plugin = plugins.Plugin("Broken", "onnxruntime-ep-broken 1", "/nowhere/lib.so")
    monkeypatch.setattr(plugins, "installed_plugins", lambda: {"Broken": plugin})
    with pytest.raises(OptionError, match="onnxruntime-ep-broken 1 does not load"):
        plugins.plugin_devices("Broken")


def test_two_builds_of_onnxruntime_are_told(monkeypatch) -> None:
    monkeypatch.setattr(builds, "installed_builds", lambda: ["onnxruntime 2", "onnxruntime-gpu 1"])
    assert "pip install onnxruntime-gpu" in str(builds.two_builds())
    monkeypatch.setattr(builds, "installed_builds", lambda: ["onnxruntime 2"])
    assert builds.two_builds() is None


def test_the_inventory_names_what_is_missing() -> None:
    found = {state.name: state for state in inventory()}
    assert found["cpu"].state == "ready"
    for name in ("coreml", "nnapi", "webnn"):
        assert found[name].state == "not installed"
        assert found[name].missing
