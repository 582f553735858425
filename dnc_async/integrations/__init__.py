"""One module per framework, lazily imported and mutually unaware: ``prometheus`` so far.

Training frameworks need none yet: a stream is an async iterator of numpy arrays, which all of them take. Adapters come with the
features that need them.
"""
