"""The node daemon: wiring, announcing, control."""
