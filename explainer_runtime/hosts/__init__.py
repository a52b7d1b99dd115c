"""How a server, a wire or a platform reaches the explainers."""
