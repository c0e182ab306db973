"""Devices that models are run on, behind one interface."""
