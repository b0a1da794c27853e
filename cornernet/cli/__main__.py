"""``python -m cornernet.cli``: the command ``cornernet`` without installing it."""

import sys

from cornernet.cli import main

if __name__ == "__main__":
    sys.exit(main())
