"""`make down`: stop what `make demo` started, also after a crash. Standard library only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastvlm_ops.core.programs.proc import UnsupportedSystemError
from fastvlm_ops.local.state import DEFAULT, DemoState


def main() -> int:
    """Stop what `make demo` started. Its files stay until the next one."""
    parser = argparse.ArgumentParser(prog="make down", description=main.__doc__)
    parser.add_argument("--state-dir", type=Path, default=DEFAULT, help="default: %(default)s")
    state = DemoState(parser.parse_args().state_dir)
    if not state.folder.exists():
        print("Nothing is running.")
        return 0
    try:
        found = len(state.processes.alive())
        left = state.stop()
    except (OSError, UnsupportedSystemError) as error:
        print(f"make down: {error}", file=sys.stderr)
        return 1
    if left:
        numbers = ", ".join(str(process.pid) for process in left)
        print(f"make down: these processes could not be stopped: {numbers}", file=sys.stderr)
        return 1
    print(f"Stopped {found} processes." if found else "Nothing was running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
