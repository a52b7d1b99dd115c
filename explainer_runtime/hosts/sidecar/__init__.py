"""Beside a model: what is not for an explainer goes there and comes back as it is."""
