"""Timing: how long it takes on this machine, and how much memory."""
