"""The process that runs a backend, and the one that watches it."""
