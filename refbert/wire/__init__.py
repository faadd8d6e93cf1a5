"""A backend in another process, in any language: docs/wire-protocol.md as Python speaks it.

frames    one message: a JSON header, then tensors as raw bytes
remote    the caller's side: a backend whose methods are messages
command   a backend that is a command: ``exec:COMMAND``
host      the other side for a backend that is a Python class
"""
