"""Measures: one a file; the file's name is the measure's. See CONTRIBUTING.md."""
