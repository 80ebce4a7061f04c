"""A relay that hears what a peer and the coordinator say to each other, frame by frame, as gRPC handed them over.

Each peer dials a port of its own. There the relay answers with the coordinator's TLS credentials, and dials the
coordinator with that peer's: both ends see the certificates that they expect, and neither is changed. That takes the
private keys of everybody, so it is for a test's throw-away consortium and nothing else.

The methods come from the wire's own descriptors: a new one is relayed, and heard, without a line here. What is heard is
in one order over all peers, and is noted before it is passed on: nothing is answered before it was heard.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from coordinator.rpc.server import OPTIONS, SERVICES, path_of
from shared.tls import TlsPaths, channel_credentials, server_credentials

CALLS_AT_ONCE = 64
_CHANNEL_OPTIONS = [
    *(option for option in OPTIONS if option[0].endswith("message_length")),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]
_SHARED_PORT = "grpc.so_reuseport"  # with whoever holds the port for the relay
_SERVER_OPTIONS = [*(option for option in OPTIONS if option[0] != _SHARED_PORT), (_SHARED_PORT, 1)]


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame. Of one call the frames have one number, and the calls of a peer have different ones."""

    call: int
    peer: str
    method: str
    from_coordinator: bool
    frame: bytes


@dataclass(slots=True)
class Break:
    """Where a call is broken off, once: after so many frames of one direction of a method were passed on."""

    method: str
    from_coordinator: bool
    after_frames: int
    done: bool = False

    def strikes(self, heard: Heard, frames: int) -> bool:
        """Whether the frame just passed on, the `frames`th of its direction, was the last one."""
        if self.done or (heard.method, heard.from_coordinator) != (self.method, self.from_coordinator):
            return False
        self.done = frames == self.after_frames
        return self.done


class _BrokenOffError(Exception):
    """By appointment."""


class Wiretap:
    """The ears of all peers."""

    def __init__(self, *, breaks: Sequence[Break] = ()) -> None:
        """`breaks`: appointments, each kept once."""
        self.heard: list[Heard] = []
        self._breaks = breaks
        self._lock = threading.Lock()
        self._calls = 0

    def new_call(self) -> int:
        with self._lock:
            self._calls += 1
            return self._calls

    def note(self, heard: Heard) -> None:
        with self._lock:
            self.heard.append(heard)

    def breaks_off(self, heard: Heard, frames: int) -> bool:
        with self._lock:
            return any(appointed.strikes(heard, frames) for appointed in self._breaks)

    @contextmanager
    def relay(
        self, *, target: str, ports: Mapping[str, int], peers: Mapping[str, TlsPaths], coordinator: TlsPaths
    ) -> Iterator[None]:
        """Listen on the port of each peer for as long as the block lasts."""
        with ExitStack() as ending:
            for peer, tls in peers.items():
                channel = grpc.secure_channel(target, channel_credentials(tls), options=_CHANNEL_OPTIONS)
                ending.callback(channel.close)
                server = grpc.server(ThreadPoolExecutor(CALLS_AT_ONCE), options=_SERVER_OPTIONS)
                for service in SERVICES:
                    handlers = {method.name: self._handler(peer, method, channel) for method in service.methods}
                    server.add_generic_rpc_handlers(
                        (grpc.method_handlers_generic_handler(service.full_name, handlers),)
                    )
                port = server.add_secure_port(f"127.0.0.1:{ports[peer]}", server_credentials(coordinator))
                assert port == ports[peer]
                server.start()
                ending.callback(_stop, server)
            yield

    def _handler(self, peer: str, method: MethodDescriptor, channel: grpc.Channel) -> Any:
        """The shape of the method on the wire, in both directions."""
        many_up, many_down = method.client_streaming, method.server_streaming
        shape = f"{'stream' if many_up else 'unary'}_{'stream' if many_down else 'unary'}"
        pass_on: Callable[..., Any] = getattr(channel, shape)(path_of(method))

        def answers(asked: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            ears = _Ears(self, call=self.new_call(), peer=peer, method=path_of(method))
            asking = ears.up(asked if many_up else [asked])
            try:
                answer = pass_on(asking if many_up else next(asking))
                if many_down:
                    context.add_callback(answer.cancel)
                yield from ears.down(answer if many_down else [answer])
            except _BrokenOffError:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the link was cut, as the test asked")
            except grpc.RpcError as error:
                ended: Any = error  # a grpc.Call as well, which gRPC's types deny
                context.set_trailing_metadata(tuple(ended.trailing_metadata() or ()))
                context.abort(ended.code(), ended.details() or "")

        def answer_of(asked: Any, context: grpc.ServicerContext) -> bytes:
            (answer,) = answers(asked, context)
            return answer

        make: Callable[..., Any] = getattr(grpc, f"{shape}_rpc_method_handler")
        return make(answers if many_down else answer_of)


def held_port() -> socket.socket:
    """A port of loopback that nobody else is given, and on which a relay may listen while it is held."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


def _stop(server: grpc.Server) -> None:
    server.stop(None).wait()


class _Ears:
    """What is heard of one call."""

    def __init__(self, tap: Wiretap, *, call: int, peer: str, method: str) -> None:
        self._tap = tap
        self._call, self._peer, self._method = call, peer, method
        self._cut = False

    def up(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """To the coordinator. One that is broken off ends there, so that all that was said is taken in."""
        for count, frame in enumerate(frames, start=1):
            heard = self._noted(frame, from_coordinator=False)
            yield frame
            if self._tap.breaks_off(heard, count):
                self._cut = True
                return

    def down(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """To the peer."""
        for count, frame in enumerate(frames, start=1):
            if self._cut:
                raise _BrokenOffError  # the coordinator heard it, and its answer is lost
            heard = self._noted(frame, from_coordinator=True)
            yield frame
            if self._tap.breaks_off(heard, count):
                raise _BrokenOffError

    def _noted(self, frame: bytes, *, from_coordinator: bool) -> Heard:
        heard = Heard(self._call, self._peer, self._method, from_coordinator, frame)
        self._tap.note(heard)
        return heard
