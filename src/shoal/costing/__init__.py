"""Cost: what a module executes, and how long it takes on this machine."""

from shoal.costing.count import cost
from shoal.costing.latency import Latency, Spread, latency, per_span_ms
from shoal.costing.resident import peak_memory
from shoal.costing.table import Cost, LayerCost, Operation, Peak

__all__ = [
    "Cost",
    "Latency",
    "LayerCost",
    "Operation",
    "Peak",
    "Spread",
    "cost",
    "latency",
    "peak_memory",
    "per_span_ms",
]
