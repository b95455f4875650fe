"""Run the command `dcamt` as a module: `python -m dcamt …`, or `torchrun -m dcamt train …` for several processes."""

import sys

from .cli import main

sys.exit(main())
