"""Telemetry of onnxruntime, off in the processes that trimtab starts.

The Linux wheels of onnxruntime 1.32 start a thread that keeps a database under the user's cache and
sends what is in it. It takes time from what is measured, in worker processes as well.
"""

from __future__ import annotations

import os

#: Environment variable that onnxruntime reads when it is imported.
VARIABLE = "ORT_DISABLE_TELEMETRY"


def disable_telemetry() -> None:
    """Turn onnxruntime's telemetry off in this process and those that it starts.

    A process calls it before it imports onnxruntime. A variable that the user set stays as it is:
    `ORT_DISABLE_TELEMETRY=0` keeps telemetry on.
    """
    os.environ.setdefault(VARIABLE, "1")
