"""What the product knows. Pure Python: imports no Airflow, and installs without it."""
