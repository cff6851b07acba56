"""Generated images against real ones, per rank, taxon and frequency of the taxon in training."""
