"""What is left of shoal in an exported net: the native residual conv net and the same net by hand, both as ONNX.

    python bench/onnx.py            exports, counts the operators left after onnxruntime's optimisation, times; results/onnx.json

The demand: no Transpose between the convolutions, no batch norm left, and at batch 1 at most 1.05 of the time by hand.
The count is made at level EXTENDED, whose graph keeps plain layouts; the time is taken at ALL, as anybody would run it.
"""
