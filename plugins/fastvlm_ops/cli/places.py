"""Where this Airflow has its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastvlm_ops.cli.errors import CommandError


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
            from airflow.sdk import conf

            from fastvlm_ops import settings
        except ImportError:
            raise CommandError("Airflow is not installed here; install it, or name a folder") from None
        try:
            include = settings.include_path()
        except settings.SettingError as error:
            raise CommandError(str(error)) from error
        return cls(Path(conf.get("core", "dags_folder")), include, Path(conf.get("core", "plugins_folder")))

    def file(self, name: str) -> Path:
        """Where a file belongs.

        :param name: its name among the shipped files, such as ``dags/backup_create.py``
        """
        part, _, rest = name.partition("/")
        root: Path = getattr(self, part)
        return root / rest
