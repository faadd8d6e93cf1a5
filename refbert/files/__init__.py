"""Files read, written and described in one way, with one kind of error."""
