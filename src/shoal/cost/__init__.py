"""Cost: what a module executes, and how long it takes on this machine."""

from shoal.cost.count import cost
from shoal.cost.latency import Latency, Spread, latency, per_span_ms
from shoal.cost.table import Cost, LayerCost

__all__ = ["Cost", "Latency", "LayerCost", "Spread", "cost", "latency", "per_span_ms"]
