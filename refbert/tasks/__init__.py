"""What the heads say of texts: masked words, classes and numbers, tags, answers."""
