"""Counterfactuals guided by prototypes: to something that looks like its class. See `method.py`."""
