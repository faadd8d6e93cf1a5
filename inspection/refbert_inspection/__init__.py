"""Looking inside: explanations of the ops, traces of a forward pass, differences between two models."""
