"""Airflow's face: one file per domain, thin over hooks and core."""
