"""python -m jaxgan_compress is jaxgan-compress."""

import sys

from jaxgan_compress.cli.main import main

sys.exit(main())
