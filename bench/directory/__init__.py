"""The directory under load: registry, locator and store as processes, many simulated peers. See `run`."""
