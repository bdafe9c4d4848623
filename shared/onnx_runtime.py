"""onnxruntime, silent: it reports its use to its maker unless it is told not to before it is loaded."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
