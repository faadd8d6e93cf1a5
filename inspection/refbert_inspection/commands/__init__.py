"""``refbert explain``, ``trace`` and ``diff``."""
