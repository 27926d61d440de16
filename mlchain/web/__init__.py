"""The HTTP API that a node serves."""
