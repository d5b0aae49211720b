"""Cost: what a module executes, and how long it takes on this machine."""

from shoal.costing.count import cost
from shoal.costing.latency import Latency, Spread, latency, per_span_ms
from shoal.costing.table import Cost, LayerCost

__all__ = ["Cost", "Latency", "LayerCost", "Spread", "cost", "latency", "per_span_ms"]
