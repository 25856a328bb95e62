"""Rules, dashboard and example configuration, held to a real Prometheus over a real network."""
