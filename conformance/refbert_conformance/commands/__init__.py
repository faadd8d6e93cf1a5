"""``refbert conform`` and ``scoreboard``."""
