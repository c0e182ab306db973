"""Operations of the Fast VLM On-Device Kit as Apache Airflow DAGs."""

__version__ = "0.1.0"
