"""``dnc demo``: the main job, on real data, against gateways that are slow and that lie. Needs the extra ``demo``."""
