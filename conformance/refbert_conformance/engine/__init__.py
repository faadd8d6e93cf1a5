"""Running one property on one backend and measuring it."""
