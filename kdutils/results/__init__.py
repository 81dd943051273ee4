"""The results that stay: what is kept of finished runs, and the documents that are written from it."""
