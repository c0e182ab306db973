"""PostgreSQL: base backups as a stream, WAL without gaps, recovery to a moment."""
