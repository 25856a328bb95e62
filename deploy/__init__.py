"""Images, Compose, Kubernetes and monitoring. A package so that its tests have names of their own."""
