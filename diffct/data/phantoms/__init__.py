"""Procedural patients with known truth."""
