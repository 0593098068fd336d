"""An Engine socket of its own for one scope: what comes through it sees and touches only what belongs to the scope.

    serve ─▶ head (a strict request) ─▶ table (its endpoint) ─▶ containers, images, … (what it means) ─▶ pipe ─▶ Engine

What is not in the table, and every key that no rule knows, is refused. The caller's identity is the socket.
"""
