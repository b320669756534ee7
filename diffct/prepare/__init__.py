"""From a public data set, as it is downloaded, to images of one size and a manifest."""
