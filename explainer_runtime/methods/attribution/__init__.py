"""Attributions: how much does each region matter? See `method.py`."""
