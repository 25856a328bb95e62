"""Generated gRPC modules. Do not edit: `make protos`."""
