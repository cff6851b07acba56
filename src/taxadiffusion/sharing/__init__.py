"""Models and pictures for others' programs: files for ComfyUI and diffusers, cards, and the hub."""
