"""Data: from anything that holds examples to a Dataset of prepared, split tensors.

open_data("digits")                            a name
open_data("houses.csv", target="price")        a table file, an .npz, a text file, or "PATH.py:function"
open_data("cora")                              a graph; also an .npz with edge_index, or a graph of PyG
open_data((X, y))                              arrays, tensors or frames; also a DataLoader or any iterable of batches
"""

from shoal.data.dataset import Dataset, Graph, Signature, Split
from shoal.data.encoders import encoder_from_json
from shoal.data.sources import open_data

__all__ = ["Dataset", "Graph", "Signature", "Split", "encoder_from_json", "open_data"]
