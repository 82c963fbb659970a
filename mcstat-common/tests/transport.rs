//! The UDP port that policies ask for, against one read off byte by byte (RFC 791 §3.1, RFC 768).

use mcstat_common::{
    frame::{Class, classify, transport, transport_plain},
    policy::{TRANSPORT_FRAGMENT, TRANSPORT_OTHER},
};
use proptest::prelude::*;

/// What varies of a frame to 239.1.2.3.
#[derive(Debug, Clone)]
struct Shape {
    tags: usize,
    options: usize,
    protocol: u8,
    /// Flags and offset.
    fragment: u16,
    port: u16,
    /// Bytes behind the IP header.
    payload: usize,
    tos: u8,
}

impl Shape {
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1];
        for _ in 0..self.tags {
            frame.extend([0x81, 0, 0, 7]);
        }
        let header = 20 + 4 * self.options;
        frame.extend([8, 0, 0x40 | (header / 4) as u8, self.tos]);
        frame.extend(((header + self.payload) as u16).to_be_bytes());
        frame.extend([0xab, 0xcd]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([5, self.protocol, 0, 0, 10, 0, 0, 2, 239, 1, 2, 3]);
        frame.extend(vec![1; 4 * self.options]);
        let mut payload = vec![0x13, 0x88];
        payload.extend(self.port.to_be_bytes());
        payload.resize(self.payload.max(payload.len()), 0);
        frame.extend(&payload[..self.payload]);
        frame
    }

    fn wanted(&self) -> u32 {
        if self.protocol != 17 {
            TRANSPORT_OTHER
        } else if self.fragment & 0x3fff != 0 || self.payload < 4 {
            TRANSPORT_FRAGMENT
        } else {
            self.port.into()
        }
    }
}

prop_compose! {
    fn shape()(
        tags in 0..3_usize,
        options in prop_oneof![3 => Just(0), 1 => 1..11_usize],
        protocol in prop_oneof![3 => Just(17), 1 => 3..=255_u8],
        // DF (0x4000) makes no fragment; MF (0x2000) and an offset do, and a fragment has no ports, the first one neither.
        fragment in prop_oneof![Just(0), Just(0x4000), Just(0x2000), Just(1), Just(0x2001), Just(0x1fff), 0..=0x7fff_u16],
        port in any::<u16>(),
        payload in 0..40_usize,
        tos in any::<u8>(),
    ) -> Shape {
        Shape { tags, options, protocol, fragment, port, payload, tos }
    }
}

proptest! {
    #[test]
    fn every_way_to_read_the_port_gives_the_same(shape in shape()) {
        let frame = shape.frame();
        let frame = frame.as_slice();
        prop_assert!(matches!(classify(&frame), Class::Data(_)), "{:?}", classify(&frame));
        prop_assert_eq!(transport(&frame), Some(shape.wanted()));
        let plain = shape.tags == 0 && shape.options == 0 && shape.payload >= 4;
        prop_assert_eq!(transport_plain(&frame), plain.then(|| shape.wanted()));
        // What lies behind a packet is padding.
        let padded = [frame, &[0xff; 24]].concat();
        let plain = shape.tags == 0 && shape.options == 0;
        prop_assert_eq!(transport_plain(&padded.as_slice()), plain.then(|| shape.wanted()));
    }

    #[test]
    fn a_view_that_ends_before_the_ports_says_nothing(shape in shape(), seen in 0..34_usize) {
        let frame = shape.frame();
        let frame = &frame[..seen.min(frame.len())];
        prop_assert_eq!(transport(&frame), None);
        prop_assert_eq!(transport_plain(&frame), None);
    }
}
