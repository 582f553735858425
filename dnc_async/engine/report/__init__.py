"""The gap report: where a run's time went, as values, text, HTML and a picture, and what it might have been."""
