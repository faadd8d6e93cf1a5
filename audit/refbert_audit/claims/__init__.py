"""The claims: a list of statements for each document (.txt), and the checks. Every module here is read."""
