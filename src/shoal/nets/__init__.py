"""Nets: one named network a file; the file's name is the network's. See CONTRIBUTING.md."""
