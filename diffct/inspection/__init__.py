"""The inspection of folders and manifests before anything learns from them."""
