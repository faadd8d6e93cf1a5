"""Text to ids to a batch: the tokenizer, its files, and the three arrays that a model takes."""
