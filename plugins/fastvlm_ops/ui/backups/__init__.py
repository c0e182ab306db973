"""Pages of the backups: what there is, what is in it, and how to restore it."""
