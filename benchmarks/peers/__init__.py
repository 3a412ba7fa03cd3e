"""The same ONNX file and the same work behind other servers, each in an environment of its own."""
