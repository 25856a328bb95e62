"""Process glue: settings, logs, metrics endpoint, health, error mapping, signals."""
