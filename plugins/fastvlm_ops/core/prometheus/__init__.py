"""Reads Prometheus, and what speaks its API: Thanos, Mimir, VictoriaMetrics, Amazon's service.

A thin layer on prometheus-api-client that adds what it lacks: explicit times, time-outs and retries for every
verb, chunks, partial answers that are noticed, and one family of errors.
"""
