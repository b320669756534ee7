"""The inspection of folders and manifests before training."""
