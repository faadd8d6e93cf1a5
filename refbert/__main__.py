"""``python -m refbert``: the command line."""

from refbert.cli import main

if __name__ == "__main__":
    main()
