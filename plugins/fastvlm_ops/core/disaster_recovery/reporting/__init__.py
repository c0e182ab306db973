"""What is written of a drill: timeline, pictures, report, journal, and what to improve."""
