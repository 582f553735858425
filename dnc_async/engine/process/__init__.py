"""The engine in a process of its own, for consumers that hold Python's lock (the GIL).

A consumer's step in pure Python lets other threads run once in 5 ms, which is too seldom for an engine that shares its
process (``python -m bench budget --only steps``). Here the whole engine, from the sockets to the decoded batch, runs in a
child process. A batch comes over in anonymous memory that is mapped, not copied, and no thread of the consumer's process
has a part in it: the batch is there when the consumer looks for it.

::

    consumer's process                            engine's process
    RemoteStream ── control: open, taken, … ────> Host ── Runtime, StreamTask, Pipeline: as ever
         ^    <──── control: opened, events, … ──┘
         └───────── one channel per stream: batches, the end ── Outbox, in place of a Mailbox

Both ends are the same library, started by us, on a socket pair that nobody else has: they may pickle.
"""
