"""IGMP and MLD frames of every kind, valid and broken, for the comparison with tshark (tests/oracle_tshark.rs).

Usage: frames.py OUT.pcap SEED. Writes the frames, and to stdout one line for each: `KIND TWIST`. Every kind is
combined with every twist that applies to it, ROUNDS times with other values; the same seed gives the same bytes. The
packets are made by scapy (python3-scapy of Debian 12), none by mcstat's own encoder.
"""

import struct
import sys

from kinds import kinds
from plan import below, pick, random_source
from twists import TWISTS, qinq, vlan

ROUNDS = 5


def main():
    path, seed = sys.argv[1:]
    random_source.seed(int(seed))
    with open(path, "wb") as out:
        # Little-endian pcap, version 2.4, Ethernet.
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        number = 0
        for _ in range(ROUNDS):
            for kind in kinds():
                for twist in TWISTS:
                    plan = kind()
                    if not twist(plan):
                        continue
                    # Every fourth frame is tagged too, so that tags meet every twist.
                    if not plan.tags and below(4) == 0:
                        pick(vlan, qinq)(plan)
                    frame, captured = plan.build()
                    out.write(struct.pack("<IIII", number // 1000, number % 1000, captured, len(frame)))
                    out.write(frame[:captured])
                    print(plan.kind, twist.__name__)
                    number += 1


main()
