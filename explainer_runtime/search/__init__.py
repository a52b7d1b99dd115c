"""Building blocks of the methods: arrays and functions; no specs, no files, no networks."""
