"""What a failure means: the smallest case, the script, what it behaves like."""
