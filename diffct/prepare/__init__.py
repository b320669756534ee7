"""Preparation of public data sets: from the download to images of one size and a manifest."""
