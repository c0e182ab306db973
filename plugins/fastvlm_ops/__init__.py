"""Operations of the Fast VLM On-Device Kit as Apache Airflow DAGs."""
