"""The runs of an experiment compared: tables, hypothesis tests and the sentences of a report."""
