"""Print the table of results and the path of the plot; reads the summary as JSON from standard input."""

import json
import sys
from pathlib import Path


def main() -> int:
    """Return 0; 1 when the plot that the summary names is not there."""
    summary = json.load(sys.stdin)
    plot = Path(summary["plot"])
    print(Path(summary["table"]).read_text(encoding="utf-8").rstrip())
    print()
    if not plot.is_file():
        print(f"error: the plot {plot} is missing", file=sys.stderr)
        return 1
    print(f"plot: {plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
