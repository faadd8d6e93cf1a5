"""What must hold, by level; `table` lists all of it."""
