"""Tests of `taxadiffusion.sharing`."""
