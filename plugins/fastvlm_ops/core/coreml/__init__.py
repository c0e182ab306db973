"""Core ML packages: what is in them, how they run on devices, and whether a new version got worse."""
