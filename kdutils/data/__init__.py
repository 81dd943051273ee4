"""What a question is, where questions come from and which split they belong to."""
