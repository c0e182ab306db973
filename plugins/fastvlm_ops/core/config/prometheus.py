"""``include/observability/prometheus/prometheus.yml``: what Prometheus scrapes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from fastvlm_ops.core.config.reading import Definition, DefinitionFile

Section = Annotated[Any, Field(description="as Prometheus's own documentation says")]


class ScrapeJob(Definition):
    """What is scraped in the same way. Its other keys are Prometheus's: ``promtool`` checks them."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    job_name: Annotated[str, Field(min_length=1, description="name of the job")]


class PrometheusConfig(DefinitionFile):
    """The configuration of Prometheus. Whether its sections are right, ``promtool check config`` tells."""

    global_: Annotated[Section, Field(alias="global")] = None
    rule_files: Annotated[
        tuple[str, ...], Field(strict=False, description="files of rules, relative to this one")
    ] = ()
    scrape_configs: Annotated[
        tuple[ScrapeJob, ...], Field(strict=False, min_length=1, description="what is scraped")
    ]
    scrape_config_files: Section = None
    alerting: Section = None
    storage: Section = None
    tracing: Section = None
    remote_write: Section = None
    remote_read: Section = None
