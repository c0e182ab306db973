"""The embedded stack: an S3 server, Airflow and a demo kit on this machine. Never needed in production."""
