"""Make ``python -m fadelab`` the same as ``fadelab``."""

from fadelab.cli import main

main()
