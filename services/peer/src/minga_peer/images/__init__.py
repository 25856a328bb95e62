"""A mirror of image registries: `/v2/` of the gateway, for containerd, podman, skopeo and others (docs/images.md)."""
