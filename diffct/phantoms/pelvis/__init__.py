"""Synthetic pelvis CT with label maps."""
