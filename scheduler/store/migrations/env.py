"""What Alembic runs: the migrations, on the connection and inside the transaction that `migrating` opened."""

from alembic import context

from scheduler.store.tables import Row

context.configure(connection=context.config.attributes["connection"], target_metadata=Row.metadata)
with context.begin_transaction():
    context.run_migrations()
