# SPDX-License-Identifier: MIT
"""TCP ports for servers that cannot choose one themselves."""

import random
import socket


def first_given_out():
    """The kernel gives ports from here on to whoever connects or asks for any."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
        return int(limits.read().split()[0])


def unused_port():
    """One that nobody has, and that the kernel gives to nobody before the server has it: other suites may run at the same time."""
    end = first_given_out()
    for _ in range(1000):
        # Where nearly all are given out there is no such port.
        port = random.SystemRandom().randrange(max(1024, end - 20000), end) if end > 2048 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise RuntimeError("no port is free")


def unused_ports(count):
    """As many, all different."""
    ports = set()
    while len(ports) < count:
        ports.add(unused_port())
    return sorted(ports)
