"""Drills: a real failure, its recovery, and the proof of it. See docs/architecture.md.

A drill is a plan, made once from a scenario and from what the target says of itself, and recorded before
anything is touched. Its faults are owned by a process of their own, which takes them back.
"""
