"""`python -m lightleak`."""

from lightleak.cli import main

if __name__ == "__main__":
    main()
