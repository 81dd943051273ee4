"""How explanations are made: prompts, backends that reach a teacher, cleaning of what it wrote."""
