//! IGMP and MLD messages from the ring buffer, as the kernel copied them: the codecs decide what they are.

use aya::maps::{MapData, RingBuf};
use mcstat_common::abi::EventHeader;
use zerocopy::FromBytes;

/// One message as it was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Port, direction, time, lengths.
    pub header: Header,
    /// The IP packet, cut to what was copied.
    pub packet: bytes::Bytes,
}

/// The head of a record.
pub type Header = EventHeader;

/// Messages taken in one go at most: what one tick can be made to do is bounded; the rest waits in the ring.
const MAX_EVENTS: usize = 65_536;

/// Takes what is waiting.
pub fn drain(ring: &mut RingBuf<MapData>) -> Vec<RawEvent> {
    let mut events = Vec::new();
    while events.len() < MAX_EVENTS
        && let Some(item) = ring.next()
    {
        if let Some(event) = event(&item) {
            events.push(event);
        }
    }
    events
}

/// A record: `None` when it is shorter than its header.
fn event(record: &[u8]) -> Option<RawEvent> {
    let (header, rest) = EventHeader::read_from_prefix(record).ok()?;
    let captured = rest.get(..header.captured as usize)?;
    Some(RawEvent {
        header,
        packet: bytes::Bytes::copy_from_slice(captured),
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    #[test]
    fn a_record_is_never_read_past_its_end() {
        let mut header = EventHeader::new_zeroed();
        header.captured = 8;
        let mut record = header.as_bytes().to_vec();
        record.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(event(&record).unwrap().packet.as_ref(), [1, 2, 3, 4, 5, 6, 7, 8]);
        for cut in 0..record.len() - 1 {
            assert_eq!(event(&record[..cut]), None, "{cut}");
        }
    }
}
