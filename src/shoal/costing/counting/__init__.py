"""Counting: what a module executes, operation by operation."""
