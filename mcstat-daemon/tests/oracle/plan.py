"""What a frame of the comparison with tshark is made of: random values from one seeded source, and the plan of a frame."""

import random

from scapy.layers.inet import IP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, PadN, RouterAlert
from scapy.layers.l2 import Ether
from scapy.packet import Raw

random_source = random.Random()


def pick(*values):
    return random_source.choice(values)


def below(limit):
    return random_source.randrange(limit)


def group4():
    return pick("224.0.0.251", "224.1.2.3", "239.1.1.1", "239.255.0.%d" % below(256), "232.9.%d.1" % below(256))


def source4():
    return "10.%d.%d.%d" % (below(256), below(256), 1 + below(254))


def group6():
    return pick("ff02::fb", "ff02::1:ff00:%x" % below(65536), "ff15::%x" % below(65536), "ff3e::8000:%x" % below(65536))


def source6():
    return "2001:db8::%x" % (1 + below(65535))


class Plan:
    """One frame to be: its message and what surrounds it. Twists change it; `build` makes the bytes."""

    def __init__(self, kind, family, destination, message, records=None, sources=None):
        self.kind = kind
        self.family = family
        self.destination = destination
        self.message = message
        # The layers whose counts can lie, if the message has such.
        self.records = records
        self.sources = sources
        self.source = source4() if family == 4 else "fe80::%x" % (1 + below(65535))
        self.ttl = 1
        self.options = [IPOption_Router_Alert()] if family == 4 else []
        self.extensions = [] if family == 4 else [IPv6ExtHdrHopByHop(options=[RouterAlert(value=0), PadN(optdata=b"")])]
        self.ip = {}
        self.tags = []
        self.trailing = b""
        self.padding = 0
        self.spoil = []
        self.cut = None

    def build(self):
        """The frame, and how many of its bytes are captured."""
        message = self.message / Raw(self.trailing) if self.trailing else self.message
        if self.family == 4:
            fields = {"tos": 0xC0, "id": 0, "flags": "DF", "proto": 2, **self.ip}
            packet = IP(src=self.source, dst=self.destination, ttl=self.ttl, options=self.options, **fields) / message
        else:
            packet = IPv6(src=self.source, dst=self.destination, hlim=self.ttl, **self.ip)
            for extension in self.extensions:
                packet = packet / extension
            packet = packet / message
        ether = Ether(src="02:00:00:00:00:01", dst="01:00:5e:00:00:01" if self.family == 4 else "33:33:00:00:00:01")
        for tag in self.tags:
            ether = ether / tag
        head = len(bytes(ether))
        # Built as one packet, so that scapy fills in the Ethernet types; the IP part is what the spoilers see.
        frame = bytearray(bytes(ether / packet))
        body = frame[head:]
        for spoil in self.spoil:
            spoil(body)
        frame[head:] = body
        if self.padding:
            frame += bytes(below(256) for _ in range(self.padding))
        frame = bytes(frame)
        captured = len(frame)
        if self.cut is not None:
            captured = head + self.cut(len(body))
        return frame, captured


def message_at(body):
    """Where the message begins in an IP packet, behind options and extension headers."""
    if body[0] >> 4 == 4:
        return (body[0] & 15) * 4
    at, following = 40, body[6]
    while following != 58:
        following, at = body[at], at + (8 if following == 44 else (body[at + 1] + 1) * 8)
    return at
