"""Compressors: each proposes edits; the driver measures their harm and gain. One a file; see CONTRIBUTING.md."""
