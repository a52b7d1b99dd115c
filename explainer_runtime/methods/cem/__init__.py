"""Contrastive explanations: what has to be absent, what suffices. See `method.py`."""
