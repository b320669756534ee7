"""Synthetic brains: T1w, FLAIR and others, as a BIDS tree."""
