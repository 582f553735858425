"""``python -m dnc_async`` is ``dnc``."""

import sys

from dnc_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
