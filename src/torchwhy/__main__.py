"""``python -m torchwhy``: the same as the command."""

import sys

from torchwhy.cli import main

sys.exit(main())
