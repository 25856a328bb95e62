"""Everything a peer has on disk: the shared folder, its index of digests, and parts of downloads."""
