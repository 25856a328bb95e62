"""Prometheus rules and the Grafana dashboard, and the code that writes what is generated of them."""
