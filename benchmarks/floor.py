"""What no round can be faster than on this machine: the same bytes over bare gRPC streams, and one sync of the disk.

The bare streams are between as many processes as a federation has daemons: one coordinator, and each participant for
itself. Every participant brings a model down and an update up, all of them at the same time, with mutual TLS, over
connections that are open already. Nothing is hashed, stored or computed, and the sending side repeats one chunk.

It is tuned as far as was found to help: freed memory stays with the process (`shared.allocator`), each frame is
serialised once and sent as the same bytes object, and nothing that is received is parsed or copied.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from federation import Federation

from consilo.demo.folders import LOOPBACK, free_ports
from shared.allocator import keep_memory
from shared.tls import TlsPaths, channel_credentials, server_credentials
from shared.update import CHUNK_BYTES
from shared.wire.transfer import decode_fetch_frame, encode_data

SERVICE = "floor"
OPTIONS = (("grpc.max_receive_message_length", 2 * CHUNK_BYTES), ("grpc.max_send_message_length", 2 * CHUNK_BYTES))
SYNCS = 200
THREADS = 40  # twice the most streams at a time, and some


def sync_s(folder: Path) -> float:
    """The median time of one append of 4 KiB and its fdatasync."""
    taken = []
    fd = os.open(folder / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(SYNCS):
            start = time.perf_counter()
            os.write(fd, bytes(4096))
            os.fdatasync(fd)
            taken.append(time.perf_counter() - start)
    finally:
        os.close(fd)
    return statistics.median(taken)


class BareStreams:
    """The processes, connected; each exchange is the same one again."""

    def __init__(self, *, coordinator: Path, participants: Sequence[Path], port: int) -> None:
        """Folders of credentials, one for each process."""
        self._processes = [_start("coordinator", coordinator, port)]
        self._processes += [_start("participant", folder, port) for folder in participants]

    def __enter__(self) -> Self:
        for process in self._processes:
            _expect(process, b"here\n")
        self.exchange_s(down_bytes=CHUNK_BYTES, up_bytes=CHUNK_BYTES)  # makes the connections
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def exchange_s(self, *, down_bytes: int, up_bytes: int) -> float:
        """The time in which every participant has its model and has delivered its update."""
        start = time.perf_counter()
        for process in self._processes[1:]:
            assert process.stdin is not None
            process.stdin.write(b"%d %d\n" % (down_bytes, up_bytes))
            process.stdin.flush()
        for process in self._processes[1:]:
            _expect(process, b"done\n")
        return time.perf_counter() - start


def bare_streams(federation: Federation) -> BareStreams:
    """Between as many processes as this federation has daemons, with their certificates."""
    return BareStreams(
        coordinator=federation.credentials("coordinator"),
        participants=[federation.credentials(name) for name in federation.participants],
        port=free_ports(1)[0],
    )


def _start(role: str, credentials: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, role, str(credentials), str(port)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _expect(process: subprocess.Popen[bytes], line: bytes) -> None:
    if process.stdout is None or process.stdout.readline() != line:
        raise SystemExit("a process of the bare streams ended")


def _frames(total: int) -> Iterator[bytes]:
    whole = bytes(CHUNK_BYTES)
    frame = encode_data(whole)
    for start in range(0, total, CHUNK_BYTES):
        yield frame if total - start >= CHUNK_BYTES else encode_data(whole[: total - start])


def _count(frames: Iterator[bytes]) -> int:
    return sum(len(decode_fetch_frame(frame)) for frame in frames)


def _serve(credentials: TlsPaths, port: int) -> None:
    def model(request: bytes, _context: object) -> Iterator[bytes]:
        yield from _frames(int(request))

    def update(requests: Iterator[bytes], _context: object) -> bytes:
        return b"%d" % _count(requests)

    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    handlers: dict[str, Any] = {
        "model": grpc.unary_stream_rpc_method_handler(model),
        "update": grpc.stream_unary_rpc_method_handler(update),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_secure_port(f"{LOOPBACK}:{port}", server_credentials(credentials))
    server.start()
    print("here", flush=True)
    server.wait_for_termination()


def _take_part(credentials: TlsPaths, port: int) -> None:
    channel = grpc.secure_channel(f"{LOOPBACK}:{port}", channel_credentials(credentials), options=OPTIONS)
    model: Any = channel.unary_stream(f"/{SERVICE}/model")
    update: Any = channel.stream_unary(f"/{SERVICE}/update")
    print("here", flush=True)
    for line in sys.stdin:
        down_bytes, up_bytes = map(int, line.split())
        came = _count(model(b"%d" % down_bytes, wait_for_ready=True))
        arrived = int(update(_frames(up_bytes)))
        if (came, arrived) != (down_bytes, up_bytes):
            raise SystemExit(f"{down_bytes} and {up_bytes} bytes were to travel: {came} and {arrived} did")
        print("done", flush=True)


def main() -> None:
    """One process of the bare streams."""
    role, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    keep_memory()
    credentials = TlsPaths(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    if role == "coordinator":
        _serve(credentials, port)
    else:
        _take_part(credentials, port)


if __name__ == "__main__":
    main()
