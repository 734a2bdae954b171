"""`python -m ornstein` is `ornstein`; so is `torchrun -m ornstein`."""

from ornstein.cli import main

main()
