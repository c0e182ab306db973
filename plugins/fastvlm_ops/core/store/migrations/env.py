"""Run by Alembic, with the connection and the transaction that ``core.store.migrate`` has begun."""

from __future__ import annotations

from alembic import context

from fastvlm_ops.core.store.tables import all_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=all_tables(),
    transactional_ddl=True,  # SQLite can, when the driver is kept from committing behind our back
)
with context.begin_transaction():
    context.run_migrations()
