"""The embedded world: facts in world.yaml, questions and true explanations made from them, tiny models."""
