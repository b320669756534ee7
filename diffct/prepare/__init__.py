"""From a public data set, as it is downloaded, to films of one size and a manifest."""
