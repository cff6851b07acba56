"""Pictures on disk: every file carries its recipe, and a folder holds one recipe."""
