"""Whether OpenVINO is installed here, and runs on a device: it knows few CPUs but Intel's."""

from __future__ import annotations

from trimtab.core.ort.accelerators import OPENVINO
from trimtab.core.ort.plugins import is_plugin, plugin_devices
from trimtab.core.ort.session import available_providers

INSTALLED = OPENVINO in available_providers()
RUNS = INSTALLED and bool(not is_plugin(OPENVINO) or plugin_devices(OPENVINO))
NEEDED = "needs OpenVINO and a device of its own: pip install onnxruntime-ep-openvino"
