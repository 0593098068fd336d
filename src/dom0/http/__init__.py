"""HTTP/1.1, small and strict: what asks the Engine and what the agent answers with. It knows nothing of either.

`client` and `server` run on asyncio and h11; `blocking` is for commands that must be over before asyncio is loaded.
Redirects, cookies, compression and upgrades are not there: neither end needs them, and each lets a hostile peer reach
further than its message.
"""
