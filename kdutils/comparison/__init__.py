"""The methods of an experiment compared: tables, tests, sentences."""
