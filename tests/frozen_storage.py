"""What a bucket held at one moment, served from memory with bytes changed: real data, injected faults."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fastvlm_ops.core.backup import CorruptionError, ObjectNotFoundError, S3Storage
from fastvlm_ops.core.backup.storage import ObjectInfo


class FrozenStorage(S3Storage):
    """Reads only. Listings and checksums are those of the moment: only ``objects`` may be changed.

    So does a disk that rots behind a server which checksums nothing when it reads.
    """

    def __init__(self, storage: S3Storage) -> None:
        super().__init__(storage.client, storage.bucket, storage.prefix)
        infos = [info for info in storage.list("") if not info.name.startswith("probe/")]
        self.objects = {info.name: storage.get(info.name, limit_bytes=1 << 30) for info in infos}
        self._infos = {
            info.name: ObjectInfo(
                info.name,
                info.size_bytes,
                info.last_modified,
                hashlib.sha256(self.objects[info.name]).hexdigest(),
            )
            for info in infos
        }

    def _get(self, name: str) -> bytes:
        if name not in self.objects:
            raise ObjectNotFoundError(f"{self}{name} does not exist")
        return self.objects[name]

    def get(self, name: str, *, limit_bytes: int) -> bytes:
        data = self._get(name)
        if len(data) > limit_bytes:
            raise CorruptionError(f"{self}{name} is {len(data)} bytes; at most {limit_bytes} expected")
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._get(name)
        found = data[offset : offset + length] if offset >= 0 else data[offset:]
        if offset >= 0 and len(found) != length:
            raise CorruptionError(f"{self}{name} is truncated: {len(found)} of {length} bytes at {offset}")
        return found

    def head(self, name: str) -> ObjectInfo:
        self._get(name)
        return self._infos[name]

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for name in sorted(self.objects):
            if name.startswith(prefix) and name > start_after:
                yield self._infos[name]
