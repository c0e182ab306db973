#!/usr/bin/env bash
# Makes .venv exactly what requirements.lock says, with the package itself in editable form.
# Does nothing when nothing has changed since the last time. PYTHON=3.12 chooses another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted="${PYTHON:->=3.11,<3.14}"
stamp=.venv/.setup-stamp
state="$PWD $wanted $(cat pyproject.toml requirements.lock scripts/setup.sh | cksum)"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then
  exit 0
fi

# Two at once (a demo in one terminal, tests in another) take turns; the second finds nothing to do.
mkdir -p .tools
if command -v flock >/dev/null && [ -z "${FASTVLM_SETUP_TURN:-}" ]; then
  FASTVLM_SETUP_TURN=1 exec flock .tools/setup.lock scripts/setup.sh
fi

. scripts/uv.sh

# A .venv that fits is brought up to date in place; one that is broken or of another Python is made anew.
if ! { [ -x .venv/bin/python ] && .venv/bin/python -c '' && [[ "$(cat "$stamp" 2>/dev/null)" == "$PWD $wanted "* ]]; }; then
  "$uv" venv --quiet --clear --python "$wanted" .venv || {
    echo "setup: no Python ($wanted) was found and none could be fetched. Please install Python 3.11, 3.12 or 3.13" >&2
    echo "       (Debian, Ubuntu: apt-get install python3), then run it again." >&2
    exit 1
  }
fi
echo "setup: $(.venv/bin/python --version), $(grep -c '^[a-zA-Z0-9].*==' requirements.lock) locked packages into .venv"
"$uv" pip sync --python .venv --require-hashes requirements.lock
"$uv" pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
echo "$state" >"$stamp"
echo "setup: done"
