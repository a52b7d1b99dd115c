"""One paper, one file: how it is fitted (if it is), how it searches, what it answers."""
