"""Long proofs of what the tests sample: each a command that tries many thousands.

Each writes a JSON document with revision, seed and figures (`report`); docs/reliability.md
shows them, with the command that repeats each.
"""
