"""A pair of PostgreSQL databases, a primary and its streaming standby: what they are, failover, rejoining,
and the proof that both hold the same rows.
"""
