"""The minga command."""
