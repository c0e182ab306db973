"""``python -m fastvlm_ops.cli``, where the command is not on PATH."""

import sys

from fastvlm_ops.cli import main

sys.exit(main())
