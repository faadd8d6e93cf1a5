"""An engine of which only outputs are known: are they the model's, and if not, what was computed instead?"""
