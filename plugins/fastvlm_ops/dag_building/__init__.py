"""What DAG files share: policies, tags, params, and reading ``include/`` safely while they are parsed."""
