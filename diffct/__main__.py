"""`python -m diffct`, the same as `diffct`."""

from diffct.cli import main

if __name__ == "__main__":
    main()
