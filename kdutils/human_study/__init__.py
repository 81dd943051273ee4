"""A study in which people judge explanations."""
