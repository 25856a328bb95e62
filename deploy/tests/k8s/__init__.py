"""The manifests of deploy/k8s: checked as text, and run on a Docker Engine."""
