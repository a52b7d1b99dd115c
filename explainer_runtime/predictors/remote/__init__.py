"""Models behind an endpoint: one client over three protocols, its patience and its manners."""
