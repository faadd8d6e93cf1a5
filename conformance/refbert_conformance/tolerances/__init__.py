"""Where tolerances come from: the declared arithmetic, its running error, the bounds that follow."""
