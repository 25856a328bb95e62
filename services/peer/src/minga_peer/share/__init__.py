"""The shared folder: its files, their index of digests, partial downloads, and the table that is announced."""
