"""Graphs: nodes with features and classes, edges between them; a row of the data is a node.

    "cora"                                  $SHOAL_DATA/cora.npz, else ../shared/data/cora.npz, with its public split
    an .npz of x, y, edge_index             (2, edges) integers; with train_mask, val_mask, test_mask where it has them
    a graph of PyG                          anything with x, y and edge_index, such as torch_geometric.data.Data

Edges are taken as they are given: an undirected graph has both directions. Features of which none is negative, such as
counts of words, become shares of their row; others stay. The parts are those of the masks, or cut as for a table.

A split holds the rows of its own nodes, so that what needs no edges is trained as on a table, and beside them the whole
graph, for nets that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoal.core.errors import BadData
from shoal.data.dataset import Dataset, Graph, Signature, Split
from shoal.data.encoders import Encoder, Given, Shares
from shoal.data.named import data_folder
from shoal.data.npz import read_npz
from shoal.data.split import Parts, cut, fingerprint
from shoal.data.target import find_target
from shoal.data.tensors import to_numpy, to_tensor

NAMES = ("cora",)
ARRAYS = ("x", "y", "edge_index")
MASKS = ("train_mask", "val_mask", "test_mask")


def is_graph(source: Any) -> bool:
    """Whether it holds a graph as PyG does: x, y and edge_index, none of them missing."""
    return all(getattr(source, name, None) is not None for name in ARRAYS)


def open_graph(source: Any, *, name: str, seed: int, task: str | None, as_given: bool) -> Dataset:
    """Open what has x, y and edge_index as attributes, or as keys of a mapping. Raises BadData."""
    held = source if isinstance(source, Mapping) else {key: getattr(source, key, None) for key in (*ARRAYS, *MASKS)}
    x = _features(held["x"])
    nodes = len(x)
    edges = _edges(held["edge_index"], nodes)
    target = find_target(held["y"], "y", task, labels=True, as_given=as_given)
    if len(target.values) != nodes:
        raise BadData(f"{name}: {nodes} nodes and {len(target.values)} targets; give one target a node")
    masks = [held.get(key) for key in MASKS]
    if any(mask is None for mask in masks):
        parts, notes = cut(target.labels, seed)
    else:
        parts, notes = _public(masks, nodes)
    counted = not as_given and bool((x >= 0).all())
    encoder: Encoder = Shares() if counted else Given()
    graph = Graph(encoder(x), edges)
    scale = target.scale(parts.train)
    y = target.tensor(scale)
    train, valid, test = (
        Split(graph.x[rows], y[rows], graph=graph, nodes=rows) for rows in (parts.train, parts.valid, parts.test)
    )
    about = [f"graph: {nodes} nodes of {x.shape[1]} features, {edges.shape[1]} edges{_one_way(edges, nodes)}"]
    about += ["features: shares of their row"] if counted else []
    signature = Signature((), x.shape[1], None, target.task)
    mark = fingerprint([x.numpy(), target.values, edges.numpy()], parts)
    every = (target.note, *about, *notes, *target.unseen(parts))
    return Dataset(name, train, valid, test, signature, encoder, every, mark, target.classes, scale)


def open_named_graph(name: str, *, seed: int, task: str | None, as_given: bool, folder: Path | None = None) -> Dataset:
    """Open a graph by name from the folder of data. Raises BadData where it is not there."""
    place = folder or data_folder()
    file = None if place is None else place / f"{name}.npz"
    if file is None or not file.is_file():
        raise BadData(f"data {name!r}: {name}.npz is not at hand; set SHOAL_DATA to a folder that holds it")
    return open_graph(read_npz(file), name=name, seed=seed, task=task, as_given=as_given)


def _features(raw: Any) -> Tensor:
    x = to_tensor(to_numpy(raw), "x")
    if x.dim() != 2 or not x.numel():
        raise BadData(f"x: shape {tuple(x.shape)} holds no features of nodes; give (nodes, features)")
    return x.to(torch.float32)


def _edges(raw: Any, nodes: int) -> Tensor:
    edges = np.asarray(to_numpy(raw))
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise BadData(f"edge_index: {edges.dtype} of shape {edges.shape}; give integers of shape (2, edges)")
    found = torch.from_numpy(edges.astype(np.int64))
    if found.numel() and not (int(found.min()) >= 0 and int(found.max()) < nodes):
        raise BadData(
            f"edge_index: joins nodes {int(found.min())} to {int(found.max())} of {nodes}; number the nodes from 0"
        )
    return found


def _public(masks: list[Any], nodes: int) -> tuple[Parts, list[str]]:
    """The parts that the masks name; a node in none of them has its features and edges, and no target."""
    arrays = [np.asarray(to_numpy(mask)) for mask in masks]
    for key, mask in zip(MASKS, arrays, strict=True):
        if mask.shape != (nodes,) or not mask.any():
            raise BadData(f"{key}: shape {mask.shape}, {int(mask.sum())} nodes; give one truth value a node, some true")
    counts = np.sum([mask.astype(bool) for mask in arrays], axis=0)
    if counts.max() > 1:
        raise BadData(f"masks: node {int(counts.argmax())} is in {counts.max()} parts; put each node in one at most")
    train, valid, test = (torch.from_numpy(np.flatnonzero(mask)) for mask in arrays)
    note = f"public split kept: {len(train)} train, {len(valid)} validation, {len(test)} test nodes"
    return Parts(train, valid, test), [note, f"nodes without a part: {int((counts == 0).sum())}"]


def _one_way(edges: Tensor, nodes: int) -> str:
    """A remark where some edges have no way back."""
    there = torch.unique(edges[0] * nodes + edges[1])
    back = torch.unique(edges[1] * nodes + edges[0])
    return "" if torch.equal(there, back) else ", not all in both directions"
