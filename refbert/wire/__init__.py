"""A backend in another process, in any language: docs/wire-protocol.md as Python speaks it.

frames           one message: a JSON header, what stands in it, then tensors as raw bytes
connection       the caller's side: requests and answers
remote           a backend whose methods are messages
command          a backend that is a command: ``exec:COMMAND``
host, pauses     the other side for a backend that is a Python class; its threads
"""
