"""Where the second place of the backups is: section ``replica`` of ``include/components.yaml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fastvlm_ops.core.config.checking import CONNECTION_PATTERN, check_connection
from fastvlm_ops.core.config.reading import Definition

REPLICA_CONNECTION = "fastvlm_s3_replica"


class Replica(Definition):
    """What ``backup_replicate`` does; which bucket that is, a connection says."""

    connection: Annotated[
        str,
        AfterValidator(check_connection),
        Field(
            description="id of the connection to the second place, of type fastvlm_s3: another bucket, best"
            " of another provider, with credentials of its own",
            json_schema_extra={"pattern": CONNECTION_PATTERN},
        ),
    ] = REPLICA_CONNECTION
    shares: Annotated[
        int,
        Field(
            ge=1,
            le=520,
            description="1 to 520: each run compares the checksums of one share of the objects, and reads"
            " that share of the packs in full, so that all have been read after as many runs",
        ),
    ] = 14
    mirror_removals: Annotated[
        bool,
        Field(
            description="true: what pruning has removed from the first place is removed from the second one"
            " too; false: it is kept there"
        ),
    ] = False
