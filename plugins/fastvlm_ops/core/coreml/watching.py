"""Whether there are other packages than those that were looked at, without reading them."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from fastvlm_ops.core.config.coreml import CoreMLDefinitions
from fastvlm_ops.core.coreml.packages import find_packages


def packages_signature(definitions: CoreMLDefinitions, root: Path) -> str:
    """Return a text that differs when the newest package of a model is another one, or has other files.

    :param definitions: ``coreml.yaml``
    :param root: what relative paths start from
    :raises PackageRefusedError: names of packages cannot be told apart
    :raises OSError: a package cannot be looked into
    """
    hasher = sha256()
    for model in definitions.models:
        hasher.update(f"{model.name}\0".encode())
        for package in find_packages(model, root)[:1]:
            hasher.update(f"{package.version}\0{package.path}\0".encode())
            for folder, folders, files in os.walk(package.path, onerror=_raise):
                folders.sort()
                for name in sorted(files):
                    path = os.path.join(folder, name)
                    found = os.lstat(path)
                    hasher.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return hasher.hexdigest()


def _raise(error: OSError) -> None:
    raise error
