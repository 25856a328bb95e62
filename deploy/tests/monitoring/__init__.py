"""Rules, dashboard and examples, held to the code and to a real Prometheus."""
