"""What is measured: one module a system, all behind the port in `bench.systems.port`."""
