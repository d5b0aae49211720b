"""Linears: one method a file; the file's name is the method's. See CONTRIBUTING.md."""
