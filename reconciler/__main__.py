"""``python -m reconciler``: the command line, without the current directory on the path of imports."""

import os
import sys

if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]

from reconciler.cli.main import main

main()
