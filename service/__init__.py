"""segserve's service: FastAPI over onnxruntime; it runs where torch and onnx are not installed."""
