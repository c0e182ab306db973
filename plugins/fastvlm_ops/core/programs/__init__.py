"""Other programs as children: with an end, stopped with all they started, and nothing secret in arguments."""

from fastvlm_ops.core.programs.airflow_cli import airflow_environment, run_airflow
from fastvlm_ops.core.programs.running import Output, ProgramError, ProgramTimeoutError, kill_running, run
from fastvlm_ops.core.programs.streaming import ProgramStream, stream

__all__ = [
    "Output",
    "ProgramError",
    "ProgramStream",
    "ProgramTimeoutError",
    "airflow_environment",
    "kill_running",
    "run",
    "run_airflow",
    "stream",
]
