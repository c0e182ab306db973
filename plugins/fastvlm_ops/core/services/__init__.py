"""Running services as drills and remediation see them: instances, and how these are started and stopped."""
