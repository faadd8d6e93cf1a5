"""Proving or disproving a backend against refbert.ops.

running_error    how far rounding may carry any op, forward and backward, found by running the truth itself
"""
