"""What Airflow's provider manager reads: connection type, settings, modules. Plain data, no imports."""

from __future__ import annotations

from typing import Any

from fastvlm_ops import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the description of this provider; entry point ``apache_airflow_provider``."""
    return {
        "package-name": "fastvlm-ops",
        "name": "FastVLM Ops",
        "description": "Runs the operations of the Fast VLM On-Device Kit.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": "FastVLM backup repository", "tags": ["service"]},
            {"integration-name": "Prometheus", "tags": ["service"]},
            {"integration-name": "Airflow's own database", "tags": ["software"]},
            {"integration-name": "PostgreSQL clusters", "tags": ["software"]},
            {"integration-name": "Apple devices", "tags": ["hardware"]},
            {"integration-name": "FastVLM services", "tags": ["service"]},
        ],
        "operators": [
            {
                "integration-name": "FastVLM backup repository",
                "python-modules": ["fastvlm_ops.operators.backup"],
            },
            {"integration-name": "Prometheus", "python-modules": ["fastvlm_ops.operators.capacity"]},
            {
                "integration-name": "Airflow's own database",
                "python-modules": ["fastvlm_ops.operators.airflow_maintenance"],
            },
            {"integration-name": "Apple devices", "python-modules": ["fastvlm_ops.operators.coreml"]},
        ],
        "sensors": [
            {
                "integration-name": "FastVLM backup repository",
                "python-modules": ["fastvlm_ops.sensors.backup"],
            },
            {"integration-name": "Apple devices", "python-modules": ["fastvlm_ops.sensors.coreml"]},
        ],
        "triggers": [
            {
                "integration-name": "FastVLM backup repository",
                "python-modules": ["fastvlm_ops.triggers.backup"],
            },
            {"integration-name": "Apple devices", "python-modules": ["fastvlm_ops.triggers.coreml"]},
        ],
        "hooks": [
            {"integration-name": "FastVLM backup repository", "python-modules": ["fastvlm_ops.hooks.s3"]},
            {"integration-name": "Prometheus", "python-modules": ["fastvlm_ops.hooks.prometheus"]},
            {
                "integration-name": "Airflow's own database",
                "python-modules": ["fastvlm_ops.hooks.airflow_db"],
            },
            {"integration-name": "PostgreSQL clusters", "python-modules": ["fastvlm_ops.hooks.postgresql"]},
            {"integration-name": "Apple devices", "python-modules": ["fastvlm_ops.hooks.apple_device"]},
            {"integration-name": "FastVLM services", "python-modules": ["fastvlm_ops.hooks.service"]},
        ],
        "extra-links": [
            "fastvlm_ops.links.backup.PruningPageLink",
            "fastvlm_ops.links.backup.RestoreIntactLink",
            "fastvlm_ops.links.capacity.AccuracyPageLink",
            "fastvlm_ops.links.capacity.CapacityPageLink",
            "fastvlm_ops.links.coreml.CoreMLPageLink",
            "fastvlm_ops.links.disaster_recovery.DrillPageLink",
        ],
        "connection-types": [
            _s3_connection_type(),
            _prometheus_connection_type(),
            _apple_device_connection_type(),
            _service_connection_type(),
        ],
        "config": {"fastvlm_ops": {"description": _SECTION, "options": _options()}},
    }


_SECTION = (
    "Settings of FastVLM Ops. They must be the same on the DAG processor, the triggerer and every worker."
)


def _s3_connection_type() -> dict[str, Any]:
    text: dict[str, Any] = {"type": ["string", "null"]}
    return {
        "connection-type": "fastvlm_s3",
        "hook-class-name": "fastvlm_ops.hooks.s3.BackupRepositoryHook",
        "hook-name": "FastVLM backup repository (S3)",
        "conn-fields": {
            "bucket": {
                "label": "Bucket",
                "schema": {"type": "string"},
                "description": "The bucket, which must exist.",
            },
            "prefix": {
                "label": "Prefix",
                "schema": text,
                "description": "Where in the bucket the repository is; empty for all of it.",
            },
            "repository_passphrase": {
                "label": "Repository passphrase",
                "schema": {"type": "string", "format": "password"},
                "description": "Opens all backups; without it, or a key file, nothing can be restored."
                " Keep a copy.",
            },
            "repository_key_file": {
                "label": "Repository key file",
                "schema": text,
                "description": "Path, on every worker, of a file that opens them too, readable by its owner"
                " alone; instead of a passphrase, or beside it.",
            },
            "endpoint_url": {
                "label": "Endpoint URL",
                "schema": text,
                "description": "For S3 servers other than AWS, as in https://s3.example.org:9000.",
            },
            "region_name": {
                "label": "Region",
                "schema": text,
                "description": "As in eu-central-1; us-east-1 where empty.",
            },
        },
        "ui-field-behaviour": {
            "hidden-fields": ["host", "schema", "port"],
            "relabeling": {"login": "Access key id", "password": "Secret access key"},
            "placeholders": {"login": "empty: the worker's own AWS identity"},
        },
    }


def _prometheus_connection_type() -> dict[str, Any]:
    def field(label: str, kind: str, description: str, **more: Any) -> dict[str, Any]:
        return {"label": label, "schema": {"type": [kind, "null"], **more}, "description": description}

    return {
        "connection-type": "fastvlm_prometheus",
        "hook-class-name": "fastvlm_ops.hooks.prometheus.PrometheusHook",
        "hook-name": "FastVLM metrics (Prometheus)",
        "conn-fields": {
            "verify": field(
                "Check the certificate", "boolean", "Off: the server may be anybody.", default=True
            ),
            "ca_bundle": field(
                "CA bundle", "string", "File, on every worker, of the authorities that are trusted."
            ),
            "client_cert": field(
                "Client certificate", "string", "File, on every worker; may hold the key too."
            ),
            "client_key": field("Client key", "string", "File, on every worker."),
            "headers": field(
                "Headers", "string", 'JSON, as in {"X-Scope-OrgID": "tenant"}.', format="password"
            ),
            "method": field(
                "Method", "string", "GET where a proxy refuses POST.", enum=["POST", "GET", None]
            ),
            "timeout_seconds": field("Time-out", "number", "Seconds for one attempt; 60 where empty."),
            "retries": field(
                "Retries", "integer", "After an attempt that failed in a way that may pass; 3 where empty."
            ),
        },
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port"],
            "relabeling": {"host": "URL", "password": "Password, or bearer token"},
            "placeholders": {
                "host": "https://prometheus.example.org:9090",
                "login": "empty: the password is a bearer token, or there is none",
            },
        },
    }


def _apple_device_connection_type() -> dict[str, Any]:
    text: dict[str, Any] = {"type": ["string", "null"]}
    return {
        "connection-type": "fastvlm_apple_device",
        "hook-class-name": "fastvlm_ops.hooks.apple_device.AppleDeviceHook",
        "hook-name": "FastVLM device (iPhone, iPad or Mac)",
        "conn-fields": {
            "bundle_identifier": {
                "label": "Bundle identifier",
                "schema": text,
                "description": "Of the runner app, fit for the profile; coremltools' own where empty.",
            },
            "provisioning_profile_uuid": {
                "label": "Provisioning profile",
                "schema": {**text, "format": "password"},
                "description": "UUID of a profile; empty: Xcode makes one for the development team.",
            },
            "device_kind": {
                "label": "Kind",
                "schema": {**text, "enum": ["iphone", "ipad", "mac", None]},
                "description": "The only device of it, where there is no UDID; iphone where empty.",
            },
        },
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port"],
            "relabeling": {"host": "UDID", "login": "Development team", "password": "Salt of its hash"},
            "placeholders": {
                "host": "empty: the only one of its kind; else as in xcrun devicectl list devices",
                "login": "ten capital letters and digits",
            },
        },
    }


def _service_connection_type() -> dict[str, Any]:
    return {
        "connection-type": "fastvlm_service",
        "hook-class-name": "fastvlm_ops.hooks.service.ServiceHook",
        "hook-name": "FastVLM service",
        "conn-fields": {
            "database_conn_id": {
                "label": "Connection of its databases",
                "schema": {"type": ["string", "null"]},
                "description": "Its login and password are those of the service's databases, whose"
                " host and port the service tells; empty: drills of databases are refused.",
            },
        },
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port", "login", "password"],
            "relabeling": {"host": "Address of its control"},
            "placeholders": {
                "host": "unix:/run/service/control.sock, or docker:unix:///var/run/docker.sock?service=x"
            },
        },
    }


def _options() -> dict[str, Any]:
    return {
        "include_dir": _folder(
            "Folder of the definition files (components.yaml and others).",
            "Default: include, beside the DAGs folder.",
            "/opt/fastvlm-ops/include",
        ),
        "kit_dir": _folder(
            "Folder of the kit: what relative paths in components.yaml start from.",
            "Default: none, so that paths there must be absolute.",
            "/srv/fastvlm-kit",
        ),
        "restore_dir": _folder(
            "The only folder below which restores write, but for those in place.",
            "Default: none, so that restores are refused.",
            "/srv/fastvlm-restores",
        ),
        "drill_dir": _folder(
            "Folder of running disaster-recovery drills: their faults and measurements. On a local disk.",
            "Default: drills, in AIRFLOW_HOME.",
            "/srv/drills",
        ),
        "drill_environments": {
            "description": "Environments in which drills may break anything, with commas between them. The"
            " target itself has to say that it is one of them.",
            "type": "string",
            "default": "demo,staging",
            "example": "staging",
            "version_added": "0.1.0",
        },
        "drill_queue": {
            "description": "Queue of the worker that drills run on: the one whose processes and files they"
            " break and measure. Default: the default queue, which is right where there is one worker.",
            "type": "string",
            "default": None,
            "example": "drills",
            "version_added": "0.1.0",
        },
        "scratch_dir": _folder(
            "Folder for copies of databases while they are backed up; needs room for the largest.",
            "Default: the system's temporary folder.",
            "/srv/scratch",
        ),
        "database_path": _folder(
            "File of the operations database (SQLite), used where there is no connection fastvlm_ops_db. On"
            " a local disk that all components and workers share, never on a network share.",
            "Default: fastvlm_ops.db in AIRFLOW_HOME.",
            "/srv/fastvlm-ops/operations.db",
        ),
        "metrics_dir": _folder(
            "Folder that metrics are written to as text files: --collector.textfile.directory of"
            " Prometheus's node exporter on every worker.",
            "Default: none, so that none are written.",
            "/var/lib/prometheus/node-exporter",
        ),
        "postgresql_bin_dir": _folder(
            "The only folder to look for PostgreSQL's programs in, pg_basebackup, pg_receivewal and others.",
            "Default: none, so that /usr/lib/postgresql and PATH are searched.",
            "/usr/lib/postgresql/17/bin",
        ),
        "wal_spool_dir": _folder(
            "Folder in which received WAL waits until the bucket has it. On a disk of its own where possible,"
            " which outlives a crash.",
            "Default: wal, in scratch_dir.",
            "/var/spool/fastvlm-ops/wal",
        ),
        "wal_spool_max_gib": {
            "description": "How much WAL of a component may wait in wal_spool_dir, in GiB. Above it, no more"
            " is received until half of it is stored: the replication slot then keeps WAL on the server.",
            "type": "float",
            "default": "8",
            "example": "50",
            "version_added": "0.1.0",
        },
        "pruning_conn_id": {
            "description": "Connection, of type fastvlm_s3, of the tasks of backup_maintenance that remove"
            " backups, so that no other needs the permission to delete. It leads to the same repository."
            " Default: fastvlm_s3.",
            "type": "string",
            "default": None,
            "example": "fastvlm_s3_pruning",
            "version_added": "0.1.0",
        },
    }


def _folder(description: str, default: str, example: str) -> dict[str, Any]:
    # The default is None in all of them: it depends on the machine, so settings.py works it out.
    return {
        "description": f"{description} An absolute path. {default}",
        "type": "string",
        "default": None,
        "example": example,
        "version_added": "0.1.0",
    }
