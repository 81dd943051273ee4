"""Explanations that others published, and nobody has to generate again."""
