"""A channel that follows its process's certificate."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from services.runtime.certificates import CertificateFiles


class RenewedChannel(grpc.aio.Channel):
    """Calls go through a channel made with the newest certificate.

    A channel of an older one carries its calls to their end and then lies idle until this one is closed: closing it
    would cancel streams, and certificates are renewed every few weeks.
    """

    def __init__(self, make: Callable[[grpc.ChannelCredentials], grpc.aio.Channel], files: CertificateFiles) -> None:
        self._make = make
        self._files = files
        self._channels = [make(files.current.channel_credentials())]

    @property
    def _channel(self) -> grpc.aio.Channel:
        renewed = self._files.renewed()
        if renewed is not None:
            self._channels.append(self._make(renewed.channel_credentials()))
        return self._channels[-1]

    async def __aenter__(self) -> "RenewedChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        for channel in self._channels:
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Of the newest."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the newest."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the newest is connected."""
        await self._channel.channel_ready()

    def unary_unary(self, *method: Any, **options: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._following("unary_unary", method, options)

    def unary_stream(self, *method: Any, **options: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._following("unary_stream", method, options)

    def stream_unary(self, *method: Any, **options: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._following("stream_unary", method, options)

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._following("stream_stream", method, options)

    def _following(self, kind: str, method: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., Any]:
        """A method that is made anew when the channel is."""
        made_for: grpc.aio.Channel | None = None
        made: Any = None

        def call(*arguments: Any, **how: Any) -> Any:
            nonlocal made_for, made
            channel = self._channel
            if channel is not made_for:
                made_for, made = channel, getattr(channel, kind)(*method, **options)
            return made(*arguments, **how)

        return call
