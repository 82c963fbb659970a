"""The twists: each changes the plan of a frame, and returns whether it applies to it."""

import struct

from scapy.layers.inet import IPOption, IPOption_EOL, IPOption_NOP, IPOption_Router_Alert, IPOption_Timestamp
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import Dot1AD, Dot1Q

from kinds import record4, record6
from plan import below, message_at, pick, source4


def plain(plan):
    return True


def bad_checksum(plan):
    def spoil(body):
        body[message_at(body) + 2 + below(2)] ^= 1 << below(8)

    plan.spoil.append(spoil)
    return True


def other_ttl(plan):
    plan.ttl = pick(0, 2, 64, 255)
    return True


def no_router_alert(plan):
    if plan.family == 4:
        plan.options = []
    else:
        plan.extensions = pick([], [IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])])
    return True


def other_options(plan):
    """Other options around the router alert, or instead of it."""
    if plan.family == 4:
        alert = IPOption_Router_Alert()
        plan.options = pick(
            [IPOption_NOP(), IPOption_NOP(), alert],
            [IPOption_Timestamp(), alert],
            [alert, IPOption_NOP(), IPOption_EOL()],
            [IPOption_EOL(), IPOption_NOP(), IPOption_NOP(), IPOption_NOP(), alert],
            [IPOption_Timestamp()],
        )
    else:
        plan.extensions = [
            IPv6ExtHdrHopByHop(
                options=pick(
                    [PadN(optdata=bytes(2)), RouterAlert(value=0)],
                    [RouterAlert(value=pick(1, 2, 35)), PadN(optdata=b"")],
                    [PadN(optdata=bytes(8)), RouterAlert(value=0), PadN(optdata=b"")],
                )
            )
        ]
    return True


def broken_option(plan):
    """An option of a length that it cannot have, before the router alert or the alert itself."""
    if plan.family == 4:
        at = pick(21, 25)
        length = pick(0, 1, 200) if at == 21 else pick(0, 2, 3, 200)
        plan.options = [IPOption(bytes([7, 3, 4])), IPOption_NOP(), IPOption_Router_Alert()]
    else:
        at = 43
        length = pick(0, 1, 4, 7, 200)
    plan.spoil.append(lambda body: body.__setitem__(at, length))
    return True


def other_source(plan):
    if plan.family == 4:
        plan.source = pick("0.0.0.0", "224.0.0.9", "255.255.255.255", "127.0.0.1")
    else:
        plan.source = pick("::", "2001:db8::9", "ff02::9", "::1")
    return True


def other_destination(plan):
    plan.destination = pick("224.0.0.9", source4()) if plan.family == 4 else pick("ff02::9", "fe80::77")
    return True


def vlan(plan):
    plan.tags = [Dot1Q(vlan=1 + below(4094), prio=below(8))]
    return True


def qinq(plan):
    inner = Dot1Q(vlan=1 + below(4094))
    plan.tags = [pick(Dot1Q(vlan=1 + below(4094)), Dot1AD(vlan=1 + below(4094))), inner]
    return True


def padding(plan):
    plan.padding = 1 + below(40)
    return True


def trailing(plan):
    plan.trailing = bytes(below(256) for _ in range(4 * (1 + below(4))))
    return True


def more_records(plan):
    if plan.records is None:
        return False
    count = len(plan.records.records) + pick(1, 7, 60000)
    setattr(plan.records, "numgrp" if plan.family == 4 else "records_number", count)
    return True


def fewer_records(plan):
    if plan.records is None or not plan.records.records:
        return False
    setattr(plan.records, "numgrp" if plan.family == 4 else "records_number", below(len(plan.records.records)))
    return True


def more_sources(plan):
    layer = plan.sources
    if plan.records is not None and plan.records.records:
        layer = pick(*plan.records.records)
    if layer is None:
        return False
    if plan.family == 4:
        layer.numsrc = len(layer.srcaddrs) + pick(1, 3, 60000)
    else:
        setattr(layer, "sources_number", len(layer.sources) + pick(1, 3, 60000))
    return True


def fewer_sources(plan):
    if plan.sources is None:
        return False
    sources = plan.sources.srcaddrs if plan.family == 4 else plan.sources.sources
    if not sources:
        return False
    setattr(plan.sources, "numsrc" if plan.family == 4 else "sources_number", below(len(sources)))
    return True


def aux_data(plan):
    if plan.records is None:
        return False
    make = record4 if plan.family == 4 else record6
    plan.records.records = [make(aux=below(4)) for _ in range(1 + below(4))]
    return True


def aux_beyond(plan):
    if plan.records is None or not plan.records.records:
        return False
    setattr(plan.records.records[-1], "auxdlen" if plan.family == 4 else "auxdata_len", 1 + below(255))
    return True


def unknown_records(plan):
    if plan.records is None:
        return False
    make = record4 if plan.family == 4 else record6
    plan.records.records = [make(pick(0, 7, 9, 255)), make(), make(pick(0, 7, 9, 255)), make()]
    return True


def declared_short(plan):
    """The IP header declares less than there is: a receiver sees a shorter message."""
    less = 1 + below(12)

    def spoil(body):
        at = 2 if plan.family == 4 else 4
        (length,) = struct.unpack("!H", body[at : at + 2])
        body[at : at + 2] = struct.pack("!H", max(0, length - less))

    plan.spoil.append(spoil)
    return True


def declared_long(plan):
    """The IP header declares more than was sent."""
    more = pick(1, 9, 1000)

    def spoil(body):
        at = 2 if plan.family == 4 else 4
        (length,) = struct.unpack("!H", body[at : at + 2])
        body[at : at + 2] = struct.pack("!H", length + more)

    plan.spoil.append(spoil)
    return True


def bad_header(plan):
    """A version that is not the Ethernet type's, or a header length below its least."""

    def spoil(body):
        if plan.family == 4:
            body[0] = pick(0x56, 0x66, 0x44, 0x40)
        else:
            body[0] = pick(0x40, 0x50) | (body[0] & 15)

    plan.spoil.append(spoil)
    return True


def cut_anywhere(plan):
    plan.cut = lambda length: below(length)
    return True


def cut_in_the_message(plan):
    least = 28 if plan.family == 4 else 56
    plan.cut = lambda length: least + below(length - least) if length > least else length - 1
    return True


def first_fragment(plan):
    if plan.family == 4:
        plan.ip.update(flags="MF", id=1 + below(65535))
    else:
        plan.extensions.append(IPv6ExtHdrFragment(offset=0, m=1, id=below(1 << 32)))
    return True


def later_fragment(plan):
    if plan.family == 4:
        plan.ip.update(flags=pick(0, "MF"), frag=1 + below(100), id=1 + below(65535))
    else:
        plan.extensions.append(IPv6ExtHdrFragment(offset=1 + below(100), m=below(2), id=below(1 << 32)))
    return True


def atomic_fragment(plan):
    if plan.family == 4:
        return False
    plan.extensions.append(IPv6ExtHdrFragment(offset=0, m=0, id=below(1 << 32)))
    return True


def more_extensions(plan):
    if plan.family == 4:
        return False
    plan.extensions += pick(
        [IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])],
        [IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=0)],
        [IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]), IPv6ExtHdrRouting(addresses=[], segleft=0)],
    )
    return True


def extension_beyond(plan):
    """A hop-by-hop header that claims to be longer than the packet."""
    if plan.family == 4:
        return False

    def spoil(body):
        body[41] = 255

    plan.spoil.append(spoil)
    return True


TWISTS = [
    plain,
    bad_checksum,
    other_ttl,
    no_router_alert,
    other_options,
    broken_option,
    other_source,
    other_destination,
    vlan,
    qinq,
    padding,
    trailing,
    more_records,
    fewer_records,
    more_sources,
    fewer_sources,
    aux_data,
    aux_beyond,
    unknown_records,
    declared_short,
    declared_long,
    bad_header,
    cut_anywhere,
    cut_in_the_message,
    first_fragment,
    later_fragment,
    atomic_fragment,
    more_extensions,
    extension_beyond,
]
