"""The gap report: where a run's time went, as values, text, HTML and a picture, and how it would change in other settings."""
