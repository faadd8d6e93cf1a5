"""A target without a pipe (firmware, a simulator) judged from files: it computes a kit's cases and writes results."""
