"""The kinds of the house: the only list. Each is a folder; adding a method is adding a file to it."""

from __future__ import annotations

from shoal.core.kind import Kind

STEMS = Kind("stem", "stems", "Stem")
BLOCKS = Kind("block", "blocks", "Block")
LINEARS = Kind("linear", "linears", "Linear")
NORMS = Kind("norm", "norms", "Norm")
WIRINGS = Kind("wiring", "wirings", "Wiring")
JOINS = Kind("join", "joins", "Join")
HEADS = Kind("head", "heads", "Head")
TASKS = Kind("task", "tasks", "Task")
NETS = Kind("net", "nets", "Architecture")
INTERVENTIONS = Kind("intervention", "interventions", "Intervention")
MEASURES = Kind("measure", "measures", "Measure")
EDITS = Kind("edit", "edits", "Edit")
COMPRESSORS = Kind("compressor", "compressors", "Compressor")

_ALL = (STEMS, BLOCKS, LINEARS, NORMS, WIRINGS, JOINS, HEADS, TASKS, NETS, INTERVENTIONS, MEASURES, EDITS, COMPRESSORS)
KINDS = {kind.folder: kind for kind in _ALL}
