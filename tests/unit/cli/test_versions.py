"""Installed versions against what the package asks for."""

from __future__ import annotations

from packaging.requirements import Requirement

from fastvlm_ops.cli.doctor.installation import wrong_versions

NEEDED = [
    Requirement(text)
    for text in (
        "pydantic<3,>=2.10",
        'apache-airflow<3.4,>=3.3; extra == "airflow"',
        'boto3>=1.36; extra == "backup"',
        'fastvlm-ops[backup,store]; extra == "airflow"',
        'coremltools>=9; extra == "coreml"',
    )
]
INSTALLED = {"pydantic": "2.12.0", "apache-airflow": "3.3.2", "boto3": "1.44.5"}


def test_what_fits_is_no_problem() -> None:
    assert wrong_versions(NEEDED, INSTALLED.get) == []


def test_what_does_not_fit_or_is_absent_is_named() -> None:
    installed = INSTALLED | {"apache-airflow": "3.2.1"}
    del installed["boto3"]
    assert wrong_versions(NEEDED, installed.get) == [
        "apache-airflow is 3.2.1, not <3.4,>=3.3",
        "boto3 is not installed",
    ]


def test_a_prerelease_of_a_version_that_fits_fits() -> None:
    assert wrong_versions(NEEDED, (INSTALLED | {"boto3": "1.45.0rc1"}).get) == []
