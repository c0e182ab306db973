#!/usr/bin/env bash
# Renews requirements.lock: every extra and the dev group, for Python 3.11 and newer, with hashes.
# Without arguments it keeps what still fits; --upgrade takes the newest; any option of `uv pip compile` works.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/uv.sh

"$uv" pip compile pyproject.toml --all-extras --group dev \
  --universal --python-version 3.11 --generate-hashes --no-header --quiet \
  --output-file requirements.lock "$@"
