"""An HTTP server for ASGI apps: uvicorn on a socket of ours, with limits, TLS, and who calls."""
