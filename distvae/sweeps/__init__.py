"""Sweeps: the search space, the plan, Ray Tune. (Not `distvae.sweep`, which is the function of the Python API.)"""
