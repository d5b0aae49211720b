"""Predicting: how long it would take, without running it."""
