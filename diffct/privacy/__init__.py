"""The privacy audit: copies among samples, and what losses betray."""
