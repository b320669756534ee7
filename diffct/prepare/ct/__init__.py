"""Preparation of CT scans: read, checked, split by patient and written in one format."""
