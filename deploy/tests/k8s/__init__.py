"""Static checks of the manifests in deploy/k8s: no cluster, no containers."""
