"""The HTTP gateway: files of the network for every program that speaks HTTP (docs/gateway.md)."""
