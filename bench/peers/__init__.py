"""``python -m bench peers``: what each loader's consumer waits for, over the same bytes from the same web server.

``run`` is the parent and ``host`` its server, both under our interpreter; each loader is one small module that runs in a
process of its own, the peers' under an interpreter that has them (``nox -s peers`` makes one). What those import of this
package, ``arm`` and ``http_get``, therefore never imports ``dnc_async``.
"""
