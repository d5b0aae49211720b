"""Objectives: what a net learns from when not from its task alone; one a file, the file's name is the objective's."""
