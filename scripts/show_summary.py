"""Print the table of the demo's summary, read as JSON from standard input, and where its plot is."""

import json
import sys
from pathlib import Path


def main() -> int:
    """Return 0; 1 when the plot that the summary names is not there."""
    summary = json.load(sys.stdin)
    plot = Path(summary["plot"])
    print(summary["table"].rstrip())
    print()
    if not plot.is_file():
        print(f"error: the plot {plot} is missing", file=sys.stderr)
        return 1
    print(f"plot: {plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
