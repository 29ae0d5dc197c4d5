"""The module onnxruntime, of whichever build is installed.

trimtab requires none of them: each build writes the same folder, so one that it required would
overwrite the one that a GPU or an NPU needs.
"""

from __future__ import annotations

from typing import Any

from .errors import MissingExtraError

#: Extra of trimtab that brings each build, or each plug-in beside the usual one.
INSTALL = (
    'Install the build for this machine: `pip install "trimtab[cpu]"`, or instead of cpu: gpu '
    "(CUDA, TensorRT), openvino, qnn, webgpu, directml; one of them, not two"
)


def runtime() -> Any:
    """Return the module onnxruntime.

    Raises:
        MissingExtraError: no build of it is installed, or what is installed does not load.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingExtraError("onnxruntime is not installed", hint=INSTALL) from error
    except ImportError as error:
        raise MissingExtraError(f"onnxruntime does not load: {error}", hint=INSTALL) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingExtraError(
            "the folder of onnxruntime is not complete: of two builds one was uninstalled",
            hint="Run `pip install --force-reinstall --no-deps` with the name of the build to keep",
        )
    return onnxruntime
