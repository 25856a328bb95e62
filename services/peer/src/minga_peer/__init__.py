"""The peer: the node daemon and the `minga` command."""
