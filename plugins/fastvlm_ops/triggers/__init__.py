"""What the triggerer runs: waits for events outside Airflow. Importable there, so never in ``dags/``."""
