"""`python -m pstp` is `pstp`."""

from pstp.cli import main

main()
