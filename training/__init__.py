"""Recipes and tools with which the shipped weights were trained and chosen."""
