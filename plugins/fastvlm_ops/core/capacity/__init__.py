"""Capacity: forecasts, what they need, what to do about it, and how right they were."""
