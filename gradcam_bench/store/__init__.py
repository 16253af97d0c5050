"""Rows on disk: part files, the schema of their columns, and how to select from them."""
