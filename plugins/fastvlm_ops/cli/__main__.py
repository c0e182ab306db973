"""``python -m fastvlm_ops.cli``: the same as ``fastvlm-ops``."""

from fastvlm_ops.cli import main

raise SystemExit(main())
