"""The command line: what a person runs in a shell, outside any task."""
