"""segserve's service: FastAPI over onnxruntime; it runs where torch and onnx are not installed."""

import os

# Published builds of onnxruntime from 1.29 on report to their maker how and with which models they are used, unless
# this is set before they are loaded. What a server runs is nobody else's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
