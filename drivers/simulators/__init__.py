"""Simulated instruments: independent programs at the far end of the real wires."""
