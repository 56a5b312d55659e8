"""`python -m innerloop`, where the command is not on the path."""

from innerloop.cli import main

if __name__ == "__main__":
    main()
