"""Alembic's entry: the connection is given by `pstp.web.database.migrate`."""

from alembic import context

from pstp.web.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
