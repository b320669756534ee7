"""Synthetic chest films with reports, and a reader of their findings."""
