"""Cost: what a module executes, and how long it takes on this machine."""

from shoal.costing.counting.count import cost
from shoal.costing.table import Cost, LayerCost, Operation, Peak
from shoal.costing.timing.latency import (
    Latency,
    Prepared,
    Spread,
    alone,
    latency,
    per_span_ms,
    prepared,
    prepared_beside,
)
from shoal.costing.timing.resident import peak_memory

__all__ = [
    "Cost",
    "Latency",
    "LayerCost",
    "Operation",
    "Peak",
    "Prepared",
    "Spread",
    "alone",
    "cost",
    "latency",
    "peak_memory",
    "per_span_ms",
    "prepared",
    "prepared_beside",
]
