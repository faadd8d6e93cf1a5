"""The numerical datasheet of a backend, found through the contract's operations alone: ``refbert probe``."""
