"""The kinds of messages: each makes the plan of a valid frame, save those that say what is wrong with them."""

import struct

from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3, IGMPv3gr, IGMPv3mq, IGMPv3mr
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
)
from scapy.packet import Raw

from plan import Plan, below, group4, group6, message_at, pick, source4, source6


def record4(kind=None, aux=0, sources=None):
    count = below(5) if sources is None else sources
    return IGMPv3gr(
        rtype=1 + below(6) if kind is None else kind,
        maddr=group4(),
        srcaddrs=[source4() for _ in range(count)],
        auxdlen=aux,
    ) / Raw(bytes(4 * aux))


def record6(kind=None, aux=0, sources=None):
    count = below(5) if sources is None else sources
    return ICMPv6MLDMultAddrRec(
        rtype=1 + below(6) if kind is None else kind,
        dst=group6(),
        sources=[source6() for _ in range(count)],
        auxdata=bytes(4 * aux),
        # In 32-bit words; scapy itself would count bytes.
        auxdata_len=aux,
    )


def igmp(kind, number, destination, code=0, group="0.0.0.0"):
    return Plan(kind, 4, destination, IGMP(type=number, mrcode=code, gaddr=group))


def igmpv3_report(records, kind="igmpv3-report"):
    message = IGMPv3(type=0x22, mrcode=0) / IGMPv3mr(records=records)
    # scapy's `/` copies what is right of it: the copy is what a twist must change.
    return Plan(kind, 4, "224.0.0.22", message, records=message.payload)


def igmpv3_query():
    group = pick("0.0.0.0", group4(), group4())
    sources = [] if group == "0.0.0.0" else [source4() for _ in range(below(6))]
    tail = IGMPv3mq(gaddr=group, s=below(2), qrv=below(8), qqic=below(256), srcaddrs=sources)
    destination = "224.0.0.1" if group == "0.0.0.0" else group
    message = IGMPv3(type=0x11, mrcode=below(256)) / tail
    return Plan("igmpv3-query", 4, destination, message, sources=message.payload)


def igmpv2_query():
    group = pick("0.0.0.0", group4())
    destination = "224.0.0.1" if group == "0.0.0.0" else group
    return igmp("igmpv2-query", 0x11, destination, 1 + below(255), group)


def group_report(kind, number):
    group = group4()
    return igmp(kind, number, group, 0, group)


def odd_igmp_query():
    plan = igmpv2_query()
    plan.kind = "igmp-query-of-9-to-11-bytes"
    plan.message = plan.message / Raw(bytes(below(256) for _ in range(1 + below(3))))
    return plan


def other(kind, number, destination, body, code=0, ttl=1):
    """A type that is no membership; its body follows type, code and checksum."""
    plan = Plan(kind, 4, destination, IGMPv3(type=number, mrcode=code) / Raw(body))
    plan.ttl = ttl
    plan.options = []
    return plan


def address_bytes(text):
    return bytes(int(part) for part in text.split("."))


def mtrace_query():
    # Group, source, receiver, response address, response TTL and query id.
    addresses = b"".join(address_bytes(text) for text in (group4(), source4(), source4(), source4()))
    return other("mtrace", pick(0x1E, 0x1F), "224.0.0.2", addresses + struct.pack("!I", below(1 << 32)), code=below(32))


def short_igmp():
    return Plan("igmp-of-under-8-bytes", 4, "224.0.0.22", IGMPv3(type=pick(0x11, 0x16, 0x22), mrcode=0) / Raw(bytes(below(4))))


def mld(kind, layer, destination, **fields):
    return Plan(kind, 6, destination, layer(**fields))


def mldv1_query():
    group = pick("::", group6())
    destination = "ff02::1" if group == "::" else group
    return mld("mldv1-query", ICMPv6MLQuery, destination, mrd=below(65536), mladdr=group)


def mldv1_report():
    group = group6()
    return mld("mldv1-report", ICMPv6MLReport, group, mladdr=group)


def odd_mld_query():
    plan = mldv1_query()
    plan.kind = "mld-query-of-25-to-27-bytes"
    plan.message = plan.message / Raw(bytes(below(256) for _ in range(1 + below(3))))
    return plan


def shorten(body, length):
    """Ends an IPv6 packet `length` bytes into its message, with a right payload length and a checksum left wrong."""
    del body[message_at(body) + length:]
    body[4:6] = struct.pack("!H", len(body) - 40)


def short_mld():
    plan = mldv1_report()
    plan.kind = "mld-of-under-24-bytes"
    length = 4 + below(20)
    plan.spoil.append(lambda body: shorten(body, length))
    return plan


def mldv2_query():
    group = pick("::", group6(), group6())
    sources = [] if group == "::" else [source6() for _ in range(below(6))]
    query = ICMPv6MLQuery2(
        mrd=below(65536), mladdr=group, S=below(2), QRV=below(8), QQIC=below(256), sources=sources
    )
    return Plan("mldv2-query", 6, "ff02::1" if group == "::" else group, query, sources=query)


def mldv2_report(records, kind="mldv2-report"):
    report = ICMPv6MLReport2(records=records)
    return Plan(kind, 6, "ff02::16", report, records=report)


def kinds():
    yield lambda: igmp("igmpv1-query", 0x11, "224.0.0.1")
    yield igmpv2_query
    yield igmpv3_query
    yield lambda: group_report("igmpv1-report", 0x12)
    yield lambda: group_report("igmpv2-report", 0x16)
    yield lambda: igmp("igmpv2-leave", 0x17, "224.0.0.2", 0, group4())
    yield lambda: igmpv3_report([record4() for _ in range(below(7))])
    yield lambda: igmpv3_report([record4(kind) for kind in range(1, 7)], "igmpv3-report-of-all-six-types")
    yield lambda: igmpv3_report([record4(4, sources=0) for _ in range(183)], "igmpv3-report-of-183-records")
    yield odd_igmp_query
    yield short_igmp
    # DVMRP version 3: type 0x13, code, minor and major version; a probe with its generation id.
    yield lambda: other("dvmrp", 0x13, pick("224.0.0.4", source4()), bytes([0, 14, 255, 3]) + bytes(4), code=1)
    # PIM version 1: query, code 0: version and reserved, mode and hold time.
    yield lambda: other("pimv1", 0x14, "224.0.0.2", bytes([0x10, 0, 0, 0, 0x20, 0, 0, 105]))
    yield mtrace_query
    # RGMP (RFC 3488): hello, bye, join, leave; TTL 1.
    yield lambda: other("rgmp", pick(0xFC, 0xFD, 0xFE, 0xFF), "224.0.0.25", address_bytes(group4()))
    # Multicast router discovery (RFC 4286): advertisement, solicitation, termination. The two short ones are 4 bytes long.
    yield lambda: other("router-advertisement", 0x30, "224.0.0.106", struct.pack("!HH", below(65536), below(8)), code=20)
    yield lambda: other("router-solicitation", 0x31, "224.0.0.2", b"")
    yield lambda: other("router-termination", 0x32, "224.0.0.106", b"")
    yield lambda: other("unknown-igmp-type", pick(0x00, 0x10, 0x15, 0x18, 0x21, 0x23, 0x40, 0x7F), group4(), bytes(4 + below(8)))
    yield mldv1_query
    yield mldv1_report
    yield lambda: mld("mldv1-done", ICMPv6MLDone, "ff02::2", mladdr=group6())
    yield mldv2_query
    yield lambda: mldv2_report([record6() for _ in range(below(7))])
    yield lambda: mldv2_report([record6(kind) for kind in range(1, 7)], "mldv2-report-of-all-six-types")
    yield lambda: mldv2_report([record6(4, sources=0) for _ in range(72)], "mldv2-report-of-72-records")
    yield odd_mld_query
    yield short_mld
