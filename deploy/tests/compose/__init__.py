"""Images and the Compose network, on a Docker Engine."""
