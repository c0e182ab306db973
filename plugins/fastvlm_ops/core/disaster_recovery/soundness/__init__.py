"""Whether what was restored can be used: not merely the same bytes, but bytes that are worth something."""
