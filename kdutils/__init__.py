"""Helpers of the explanation-distillation study; the study itself is in ``notebooks/``.

Importing this package loads nothing heavy and fetches nothing: torch, transformers and
datasets are imported by the functions that need them.
"""

__version__ = "0.1.0"
