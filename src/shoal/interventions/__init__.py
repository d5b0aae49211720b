"""Interventions: one a file; the file's name is the intervention's. See CONTRIBUTING.md."""
