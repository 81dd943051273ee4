"""Experiments: a YAML file that names a grid of runs, checked before anything runs, and how its jobs are executed."""
