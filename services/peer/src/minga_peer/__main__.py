"""`python -m minga_peer` is the `minga` command."""

from minga_peer.cli.main import main

if __name__ == "__main__":
    main()
