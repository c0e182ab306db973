"""One hook per outside system."""
