"""`python -m minga_cli` is the `minga` command."""

from minga_cli.main import main

if __name__ == "__main__":
    main()
