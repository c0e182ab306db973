"""``python -m fastvlm_ops.core.store``: brings the operations database up to date."""

from __future__ import annotations

import os
import sys

from fastvlm_ops.core.store.errors import StoreError
from fastvlm_ops.core.store.migrate import head_version, migrate

_VARIABLE = "FASTVLM_OPS_DATABASE_URL"


def main() -> int:
    """Migrate the database that the environment names; its address is no argument, which all could read.

    :returns: the exit code
    """
    url = os.environ.get(_VARIABLE)
    if not url:
        print(f"{_VARIABLE} is not set: sqlite:////srv/ops.db or postgresql://…", file=sys.stderr)
        return 2
    try:
        migrate(url)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The operations database is at version {head_version()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
