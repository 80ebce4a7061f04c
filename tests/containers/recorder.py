"""Records what crosses a network namespace: run in a container that owns it, before whoever is watched comes into it.

    python recorder.py SECONDS

Every packet of every interface, loopback too, as the kernel shows it to an AF_PACKET socket. One line of JSON on
standard output for each thing that was not seen before: who sent what to whom, and each name that was asked for.
Standard library only, since it runs alone in an image of Python. Left out is what the kernel says by itself to its
neighbours: ARP, and ICMPv6 of multicast listeners, routers and neighbours.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import sys
from collections.abc import Iterator

ETH_P_ALL = 0x0003
ETH_P_IP, ETH_P_IPV6, ETH_P_ARP = 0x0800, 0x86DD, 0x0806
PACKET_OUTGOING = 4
TCP, UDP, ICMPV6 = 6, 17, 58
KERNELS_OWN_ICMPV6 = {130, 131, 132, 133, 134, 135, 136, 143}
SYN, ACK = 0x02, 0x10
DNS_HEADER = 12
# Docker answers names at this address in every namespace, at a port that it moves: packets show the moved one.
ENGINES_RESOLVER = "127.0.0.11"
Seen = dict[str, object]


def packet_of(frame: bytes, ethertype: int, *, outgoing: bool) -> Iterator[Seen]:
    """What a packet tells, as one or more records; nothing for the kernel's own."""
    way = "out" if outgoing else "in"
    if ethertype == ETH_P_IP:
        length = (frame[0] & 0x0F) * 4
        source, target = (str(ipaddress.ip_address(frame[at : at + 4])) for at in (12, 16))
        protocol, rest = frame[9], frame[length:]
    elif ethertype == ETH_P_IPV6:
        source, target = (str(ipaddress.ip_address(frame[at : at + 16])) for at in (8, 24))
        protocol, rest = frame[6], frame[40:]
        if protocol == 0:  # hop-by-hop options, as in front of what multicast listeners report
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        if protocol == ICMPV6 and rest[0] in KERNELS_OWN_ICMPV6:
            return
    elif ethertype == ETH_P_ARP:
        return
    else:
        yield {"what": "other", "way": way, "ethertype": ethertype}
        return
    ends: Seen = {"way": way, "source": source, "target": target}
    if protocol == TCP:
        source_port, target_port, flags = *struct.unpack("!HH", rest[:4]), rest[13]
        if flags & (SYN | ACK) == SYN:
            yield {"what": "dial", **ends, "port": target_port}
        else:
            yield {"what": "tcp", **ends, "port": min(source_port, target_port)}  # the other is a passing one
    elif protocol == UDP:
        source_port, target_port = struct.unpack("!HH", rest[:4])
        if target == ENGINES_RESOLVER or target_port == 53:
            yield {"what": "name", "name": asked_name(rest[8:])}
        elif not (source == ENGINES_RESOLVER or source_port == 53):
            yield {"what": "udp", **ends, "port": target_port}
    else:
        yield {"what": "other", **ends, "protocol": protocol}


def asked_name(query: bytes) -> str:
    labels, at = [], DNS_HEADER
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += query[at] + 1
    return ".".join(labels).lower()


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    seen = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        tell(json.dumps({"what": "recording"}))
        packets.settimeout(float(sys.argv[1]))
        while True:
            frame, (_, ethertype, kind, _, _) = packets.recvfrom(65535)
            for record in packet_of(frame, ethertype, outgoing=kind == PACKET_OUTGOING):
                line = json.dumps(record, sort_keys=True)
                if line not in seen:
                    seen.add(line)
                    tell(line)


if __name__ == "__main__":
    main()
