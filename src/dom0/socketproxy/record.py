"""What a run asks for: its socket allows all that a grant can allow, and keeps the smallest grants that did."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.socketproxy.context import Asked, Call, Context, Document, Handler
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.partial import merge
from dom0.socketproxy.refusal import Refused

CREATE = ("containers", "create")


class Recording:
    """`needed` are the smallest grants that allow what has passed until now."""

    def __init__(self) -> None:
        self.needed = Grants()

    def observe(self, handler: Handler) -> Handler:
        """`handler`, asked again with what it says it would take, until it answers or no grant would help.

        A request that is refused in the end adds nothing: a refusal comes before anything is done.
        """

        async def answer(context: Context, asked: Asked) -> Document | Call:
            wanted = self.needed
            if asked.path == CREATE:  # what was only read until now would be read-only, and nothing refused
                wanted = replace(wanted, paths=tuple(path for path in wanted.paths if not path.endswith(":ro")))
            while True:
                try:
                    answered = await handler(replace(context, grants=wanted), asked)
                except Refused as refused:
                    wider = merge(wanted, refused.grant) if refused.grant else wanted
                    if wider == wanted:
                        raise
                    wanted = wider
                else:
                    self.needed = merge(self.needed, wanted)
                    return answered

        return answer
