"""`python -m ornstein.laws [PACKAGE ...]`: one line for each law and entry; exit code 1 if one is broken."""

import sys
from collections import Counter

from ornstein.errors import InputError
from ornstein.laws import check


def main(packages: list[str]) -> int:
    """Check what these packages register, or every table; 0, or 1 if a law is broken, 2 for bad input."""
    counted: Counter[str] = Counter()
    try:
        for package in packages or [None]:  # type: ignore[list-item]
            for finding in check(package):
                print(finding, flush=True)
                counted[finding.verdict] += 1
    except InputError as error:
        print(f"ornstein.laws: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counted.items(), reverse=True)))
    return 1 if counted["broken"] else 0


if __name__ == "__main__":
    if any(word.startswith("-") for word in sys.argv[1:]):
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    sys.exit(main(sys.argv[1:]))
