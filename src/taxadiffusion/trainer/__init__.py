"""The loop on accelerate: it yields events, and knows no logger, no progress bar and no picture."""
