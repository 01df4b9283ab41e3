"""Sweeps: the search space, the plan, Ray Tune."""
