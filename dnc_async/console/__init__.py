"""The web console's place. There is none yet: ``statistics()`` of a stream holds what it will show."""
