"""Explanations that others published: by Llama and Qwen (llm), by PaLM (palm), and by people."""
