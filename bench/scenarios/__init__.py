"""What is measured: one module a kind of scenario."""
