"""Where this Airflow has its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastvlm_ops.cli.errors import CommandError

NO_AIRFLOW = "Airflow is not installed here"


@dataclass(frozen=True)
class Places:
    """The folders that the package's files belong in; none need exist.

    :param dags: of DAG files
    :param include: of definition files
    :param plugins: of plugin files
    """

    dags: Path
    include: Path
    plugins: Path

    @classmethod
    def below(cls, folder: Path) -> Places:
        """Those below one folder, as in a repository of DAGs."""
        return cls(folder / "dags", folder / "include", folder / "plugins")

    @classmethod
    def of_airflow(cls) -> Places:
        """Those that Airflow's configuration names.

        :raises CommandError: there is no Airflow, or ``include_dir`` is not an absolute path
        """
        try:
            from airflow.configuration import conf
        except ImportError:
            raise CommandError(f"{NO_AIRFLOW}; install it, or name a folder") from None
        dags, plugins = (Path(conf.get("core", name)) for name in ("dags_folder", "plugins_folder"))
        include = (conf.get("fastvlm_ops", "include_dir", fallback="") or "").strip()
        if include and not Path(include).is_absolute():
            raise CommandError(f"[fastvlm_ops] include_dir is {include!r}; it must be an absolute path")
        return cls(dags, Path(include) if include else dags.parent / "include", plugins)

    def file(self, name: str) -> Path:
        """Where a file belongs.

        :param name: its name among the shipped files, such as ``dags/backup_create.py``
        """
        part, _, rest = name.partition("/")
        root: Path = getattr(self, part)
        return root / rest
