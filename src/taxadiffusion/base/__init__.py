"""A base as diffusers publishes it: its files, its networks, and what can be put on its U-Net."""
