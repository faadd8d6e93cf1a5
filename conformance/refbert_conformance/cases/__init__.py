"""What is tried: sizes and numbers for ops, updates, layers and models."""
