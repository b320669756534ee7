"""Synthetic chest films with reports, and the reader of their findings."""
