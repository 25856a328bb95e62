"""Serving contents to others, and taking their uploads."""
