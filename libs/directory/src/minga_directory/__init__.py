"""All knowledge of Redis: keys, records, scripts, and the ports that the services use."""
