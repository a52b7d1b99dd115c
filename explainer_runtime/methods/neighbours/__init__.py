"""Neighbours: which known rows are most like this one? See `method.py`."""
