"""Let `python -m tunesmith` do what the `tunesmith` command does."""

from tunesmith.cli import main

if __name__ == "__main__":
    main()
