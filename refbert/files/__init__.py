"""Read and write files and JSON, atomically and with errors of one line."""
