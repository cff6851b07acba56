"""Networks from images to features, each with its name and the hash of its weights."""
