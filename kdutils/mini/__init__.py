"""The tiny models of the embedded world, and an example of every table of the study."""
