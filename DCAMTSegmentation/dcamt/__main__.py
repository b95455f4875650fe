"""`python -m dcamt` is the command `dcamt`, as torchrun needs it: `torchrun -m dcamt train …`."""

import sys

from .cli import main

sys.exit(main())
