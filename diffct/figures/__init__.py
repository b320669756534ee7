"""Pictures: montages, contact sheets, comparisons and loss curves."""
