"""How good and how fast, against the recorded reference. Run `make bench`; results land in `results/`."""
