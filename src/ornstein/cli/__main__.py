"""`python -m ornstein.cli` is `ornstein`."""

from ornstein.cli import main

main()
