"""Whether a server answers: ``python -m ojala.deploy.healthcheck URL`` ends with 0 if it does."""

from __future__ import annotations

import sys
import urllib.request


def main(url: str) -> int:
    """0 if the URL answers with success within five seconds, else 1."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return 0
    except OSError as problem:
        print(f"{url}: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
