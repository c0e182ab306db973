"""The tree that is backed up, on the first day and on the second. The same seed gives the same bytes.

First day: three model packages with weights like those of a trained network (fp16, normally distributed),
configuration files, and an SQLite database. On the second day each model has a new version beside the old
one, some configuration files are changed, new or gone, and 1 % of the database's rows are updated.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIB = 1 << 20
_WEIGHTS = Path("Data") / "com.apple.CoreML" / "weights" / "weight.bin"
_DEVIATION = 0.02
_REGIONS = 8
_REWRITTEN = 0.05
_INSERTED_BYTES = (1_021, 16_411, 65_537)  # odd, so that everything behind them moves off its alignment
_UPDATED_ROWS = 0.01
_ROW_BYTES = 1030
_WORDS = "a cat on the street holds receipt screen person tree sign blurred red two left of table with text"


@dataclass(frozen=True)
class Scale:
    """How large the tree is.

    :param weights_mib: of each model
    :param configuration_files: their number
    :param changed_files: changed on the second day; a quarter of it is new, and as many are gone
    :param database_mib: about the size of the database
    """

    weights_mib: tuple[int, ...] = (96, 160, 256)
    configuration_files: int = 2000
    changed_files: int = 20
    database_mib: int = 103


QUICK = Scale(weights_mib=(2, 3), configuration_files=40, changed_files=8, database_mib=2)


class Workload:
    """A tree that can be turned from one day to the other and back.

    :param folder: that the tree, and what the other day needs, are made in
    :param scale: of the tree
    :param seed: of its contents
    """

    def __init__(self, folder: Path, scale: Scale, seed: int = 7) -> None:
        self.tree = folder / "tree"
        self._aside = folder / "aside"
        self._scale = scale
        self._seed = seed

    def build(self) -> None:
        """Make the tree of the first day, and put aside what the second one adds."""
        (self.tree / "models").mkdir(parents=True)
        (self.tree / "database").mkdir()
        self._aside.mkdir()
        for number, weights_mib in enumerate(self._scale.weights_mib):
            self._build_model(number, weights_mib * MIB)
        self._write_configuration(range(self._scale.configuration_files))
        self._build_database()
        self.first_day()

    def first_day(self) -> None:
        """Turn the tree to the first day."""
        for version in (self.tree / "models").glob("*-v2.mlpackage"):
            version.rename(self._aside / version.name)
        shutil.copyfile(self._aside / "day-1.db", self.tree / "database" / "operations.db")
        changed, new, gone = self._changes()
        for number in new:
            self._configuration_file(number).unlink(missing_ok=True)
        self._write_configuration([*changed, *gone])

    def second_day(self) -> None:
        """Turn the tree to the second day."""
        for version in self._aside.glob("*-v2.mlpackage"):
            version.rename(self.tree / "models" / version.name)
        shutil.copyfile(self._aside / "day-2.db", self.tree / "database" / "operations.db")
        changed, new, gone = self._changes()
        self._write_configuration([*changed, *new], version=2)
        for number in gone:
            self._configuration_file(number).unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """Size of all files of the tree as it is now."""
        return sum(path.stat().st_size for path in self.tree.rglob("*") if path.is_file())

    # -- models ------------------------------------------------------------------------------------

    def _build_model(self, number: int, size_bytes: int) -> None:
        chance = np.random.Generator(np.random.SFC64([self._seed, number]))
        weights = _weights(chance, size_bytes)
        self._write_model(self.tree / "models" / f"fastvlm-{number}-v1.mlpackage", "1", [weights])
        pieces = list(_edited(chance, weights))
        self._write_model(self._aside / f"fastvlm-{number}-v2.mlpackage", "2", pieces)

    def _write_model(self, package: Path, version: str, weights: list[bytes]) -> None:
        file = package / _WEIGHTS
        file.parent.mkdir(parents=True)
        with file.open("wb") as output:
            output.writelines(weights)
        manifest = {"fileFormatVersion": "1.0.0", "rootModelIdentifier": "model", "version": version}
        (package / "Manifest.json").write_text(json.dumps(manifest, indent=4))
        graph = b"".join(b"layer_%05d: conv, weight@%012d\n" % (i, i * 18432) for i in range(4000))
        (file.parents[1] / "model.mlmodel").write_bytes(graph + version.encode())

    # -- configuration -----------------------------------------------------------------------------

    def _changes(self) -> tuple[range, range, range]:
        """Numbers of the files that change, that are new, and that go."""
        count, step = self._scale.configuration_files, self._scale.changed_files // 4
        return range(self._scale.changed_files), range(count, count + step), range(count - step, count)

    def _configuration_file(self, number: int) -> Path:
        ending = "json" if number % 4 == 0 else "yaml"
        return self.tree / "configuration" / f"group-{number % 20:02d}" / f"device-{number:05d}.{ending}"

    def _write_configuration(self, numbers: range | list[int], version: int = 1) -> None:
        for number in numbers:
            file = self._configuration_file(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            chance = random.Random(f"{self._seed} {number} {version}")
            values: dict[str, float | str] = {
                f"setting_{i:02d}": round(chance.uniform(0, 1000), 3) for i in range(50)
            }
            values |= {"name": f"device-{number}", "version": version, "token": chance.randbytes(24).hex()}
            lines = "".join(f"{name}: {value}\n" for name, value in values.items())
            file.write_text(json.dumps(values, indent=1) if file.suffix == ".json" else lines)

    # -- database ----------------------------------------------------------------------------------

    def _build_database(self) -> None:
        first, second = self._aside / "day-1.db", self._aside / "day-2.db"
        chance = random.Random(self._seed)
        count = self._scale.database_mib * MIB // _ROW_BYTES
        with closing(sqlite3.connect(first)) as database, database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute(
                "CREATE TABLE requests (id INTEGER PRIMARY KEY, device INTEGER, text TEXT, embedding TEXT)"
            )
            database.executemany("INSERT INTO requests VALUES (?, ?, ?, ?)", _rows(chance, count))
        shutil.copyfile(first, second)
        updated = chance.sample(range(1, count + 1), int(count * _UPDATED_ROWS))
        with closing(sqlite3.connect(second)) as database, database:
            database.executemany(
                "UPDATE requests SET embedding = ? WHERE id = ?",
                [(chance.randbytes(300).hex(), row) for row in updated],
            )


def _weights(chance: np.random.Generator, size_bytes: int) -> bytes:
    values = chance.standard_normal(size_bytes // 2, dtype=np.float32)
    values *= _DEVIATION
    return values.astype(np.float16).tobytes()


def _edited(chance: np.random.Generator, weights: bytes) -> Iterator[bytes]:
    """The weights with eight regions trained on, 5 % in all, and bytes inserted at three places."""
    region_bytes = int(len(weights) * _REWRITTEN / _REGIONS) // 2 * 2
    step = len(weights) // _REGIONS
    for number in range(_REGIONS):
        start = number * step + int(chance.integers(0, (step - region_bytes) // 2)) * 2
        end = (number + 1) * step if number < _REGIONS - 1 else len(weights)
        yield weights[number * step : start]
        yield _weights(chance, region_bytes)
        yield weights[start + region_bytes : end]
        if number % 3 == 1 and number // 3 < len(_INSERTED_BYTES):  # after regions 1, 4 and 7
            yield chance.bytes(_INSERTED_BYTES[number // 3])


def _rows(chance: random.Random, count: int) -> Iterator[tuple[int, int, str, str]]:
    words = _WORDS.split()
    for number in range(1, count + 1):
        text = " ".join(chance.choices(words, k=70))
        yield number, chance.randint(1, 4000), text, chance.randbytes(300).hex()
