"""ONNX: what a graph executes, counted with the same conventions."""
