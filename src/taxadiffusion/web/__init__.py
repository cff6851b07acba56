"""A model as a page in the browser: find a taxon, see it, have pictures of it made. No tensors here but in `worker`."""
