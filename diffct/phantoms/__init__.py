"""Synthetic cohorts for trials and tests; data sets, training and pipelines never import them."""
