# Airflow with this package, at the versions of requirements.lock.
# The slim image has no providers of its own, so nothing in it can disagree with the lock.
FROM apache/airflow:slim-3.3.2-python3.11

USER root
RUN install --directory --owner=airflow --group=0 --mode=0775 \
    /opt/airflow/state /srv/fastvlm-kit /srv/fastvlm-restores /srv/fastvlm-drills /srv/fastvlm-drills/metrics \
    /srv/wal-spool
USER airflow

COPY --chown=airflow:0 pyproject.toml requirements.lock CHANGELOG.md LICENSE README.md /opt/fastvlm-ops/
COPY --chown=airflow:0 plugins /opt/fastvlm-ops/plugins
# `fastvlm-ops init` writes these; here they are mounted, but the wheel is built with them.
COPY --chown=airflow:0 dags /opt/fastvlm-ops/dags
COPY --chown=airflow:0 include /opt/fastvlm-ops/include
RUN pip install --no-cache-dir 'uv>=0.9' \
    && uv pip install --no-cache --constraint /opt/fastvlm-ops/requirements.lock \
       '/opt/fastvlm-ops[airflow,postgres]'
