"""`python -m gessl`: what the workflow's rules call."""

import sys

from gessl.cli import main

sys.exit(main())
