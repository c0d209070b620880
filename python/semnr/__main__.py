"""`python -m semnr`."""

import sys

from ._cli import main

sys.exit(main())
