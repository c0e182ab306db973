# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts, from the top of the project: sets $uv, and keeps uv inside the project.
# uv is taken from PATH, else from .tools/uv, where pip puts it. What is missing for that is installed
# with apt-get where that is possible, and otherwise named in one message.

export UV_PYTHON_INSTALL_DIR="$PWD/.tools/python" # used only if uv has to fetch an interpreter
export UV_PYTHON_PREFERENCE=system
if [ -n "${CI:-}" ]; then export UV_NO_PROGRESS=1; fi
unset VIRTUAL_ENV

. scripts/apt.sh

python_with_pip() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

find_uv() {
  local candidate
  for candidate in uv .tools/uv/bin/uv; do
    if "$candidate" --version >/dev/null 2>&1; then
      uv="$candidate"
      return
    fi
  done
  return 1
}

bootstrap_uv() {
  find_uv && return
  if ! python_with_pip >/dev/null; then
    echo "setup: installing python3 and python3-pip from the distribution"
    if ! apt_install python3 python3-pip >&2 || ! python_with_pip >/dev/null; then
      {
        echo "setup: something is missing and could not be installed from here. Please install, then run it again:"
        command -v python3 >/dev/null || echo "  python3      3.11 to 3.13            (Debian, Ubuntu: apt-get install python3)"
        echo "  pip          for that Python           (Debian, Ubuntu: apt-get install python3-pip)"
        echo "  or, instead of both, uv                (which brings a Python if there is none)"
      } >&2
      return 1
    fi
  fi
  echo "setup: installing uv into .tools/uv"
  "$(python_with_pip)" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --upgrade --target .tools/uv 'uv>=0.9'
  find_uv
}

bootstrap_uv
