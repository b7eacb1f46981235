"""`python -m dalr`: the same as the `dalr` command."""

from dalr.cli import main

if __name__ == "__main__":
    main()
