"""A method of somebody else's: which one pixel does the class depend on most?

It is what docs and tests point at to show how a method is added: settings, and a module that fits, checks,
searches, answers and shows. `weakest_pixel-1.0.dist-info` is what installing it would leave behind.
"""
