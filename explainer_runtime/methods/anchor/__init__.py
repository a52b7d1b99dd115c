"""Anchors: which part of the image holds the answer in place? See `method.py`."""
