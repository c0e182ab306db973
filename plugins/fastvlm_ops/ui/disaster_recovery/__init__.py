"""Pages of the disaster-recovery drills."""
