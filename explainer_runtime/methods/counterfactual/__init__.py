"""Counterfactuals: what is the least that would have had to be different? See `method.py`."""
