"""Medical images as arrays with physical meaning."""
