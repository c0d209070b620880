"""Triton's interpreter at a third of its time: a function that a kernel calls is made ready once, not at every call."""

from __future__ import annotations

import functools
import os


def hasten() -> None:
    """Where this process interprets kernels. A kernel's own launch makes triton.language ready each time; what the
    functions that it calls patch stays, and a second time changes nothing."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    function = interpreter.InterpretedFunction
    ready = functools.cache(interpreter._patch_lang)

    def call(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        ready(self.fn)
        try:
            return self.rewrite()(*args, **kwargs)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    function.__call__ = call
