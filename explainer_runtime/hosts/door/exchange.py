"""A request that a piece of the door has read and hands on, and an answer that one keeps: plain ASGI."""

from __future__ import annotations

from explainer_runtime.hosts.door.gate import Message, Receive


def again(body: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose body is this; then whatever comes from its client, such as hanging up."""
    whole = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_again() -> Message:
        message = next(whole, None)
        return await receive() if message is None else message

    return receive_again


class Collected:
    """A `send` that keeps the answer.

    Attributes:
        status: 503 until there is one.
        headers: As they were sent, their names in lower case.
    """

    def __init__(self) -> None:
        self.status = 503
        self.headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """Keep one piece of it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(name.lower(), value) for name, value in message["headers"]]
        else:
            self._parts.append(message.get("body", b""))

    @property
    def body(self) -> bytes:
        """All of the body that has come."""
        return b"".join(self._parts)
