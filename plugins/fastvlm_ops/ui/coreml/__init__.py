"""Pages of Core ML benchmarks: where every model stands, and how it came there."""
