"""The engine in its own process, for consumers that hold Python's lock (the GIL).

A consumer's step in pure Python lets other threads run once in 5 ms, which is too rarely for an engine in the same process
(``python -m bench budget --only steps``). Here the whole engine, from the sockets to the decoded batch, runs in a child
process. A batch is passed in anonymous memory that is mapped, not copied, and no thread of the consumer's process is involved:
when the consumer asks for the batch, it is there.

::

    consumer's process                            engine's process
    RemoteStream ── control: open, taken, … ────> Host ── Runtime, StreamTask, Pipeline: as in a thread
         ^    <──── control: opened, events, … ──┘
         └───────── one channel per stream: batches, the end ── Outbox, instead of a Mailbox

Both ends are the same library, started by us, on a socket pair that no other process has, so they may use pickle.
"""
