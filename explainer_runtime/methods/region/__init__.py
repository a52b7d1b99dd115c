"""Regions: what would have to be hidden for the answer to be another? See `method.py`."""
