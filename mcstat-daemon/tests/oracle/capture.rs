//! The generated frames: runs `frames.py` (scapy) and reads the pcap file that it writes.

use std::{fs, path::Path};

use mcstat_common::frame::{Packet, Plain};

use super::run;

/// One frame of the capture.
#[derive(Debug)]
pub struct Frame {
    /// Kind and twist, as the generator names them.
    pub kind: String,
    pub twist: String,
    /// What was captured, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Length of the frame as it was sent.
    pub sent: usize,
}

/// Makes the frames of this seed in `directory`; returns them and the path of the pcap file.
pub fn generate(directory: &Path, seed: u64) -> (Vec<Frame>, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/frames.py");
    let path = directory.join("frames.pcap").to_str().expect("a UTF-8 path").to_owned();
    // Debian's own interpreter: python3-scapy is installed for that one, whatever comes first in PATH.
    // -B: no compiled files into the checkout.
    let arguments = ["-B", script, &path, &seed.to_string()];
    let labels = run("/usr/bin/python3", &arguments, directory);
    let frames = read(&fs::read(&path).unwrap());
    let labels: Vec<&str> = labels.lines().collect();
    assert_eq!(frames.len(), labels.len(), "one label for each frame");
    let frames = frames.into_iter().zip(labels).map(|((bytes, sent), label)| {
        let (kind, twist) = label.split_once(' ').expect("KIND TWIST");
        Frame {
            kind: kind.to_owned(),
            twist: twist.to_owned(),
            bytes,
            sent,
        }
    });
    (frames.collect(), path)
}

/// Captured bytes and sent length of every record of a little-endian pcap file of Ethernet frames.
fn read(file: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_c3d4, 1), "pcap, Ethernet");
    let mut records = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let (captured, sent) = (word(at + 8) as usize, word(at + 12) as usize);
        records.push((file[at + 16..at + 16 + captured].to_vec(), sent));
        at += 16 + captured;
    }
    records
}

/// The frame as the classifier meets it in the kernel: as long as it was sent, of which a part can be reached.
impl Packet for &Frame {
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        self.bytes.as_slice().read(offset)
    }

    fn length(&self) -> usize {
        self.sent
    }
}

impl Frame {
    /// Where the IP header begins, behind up to two VLAN tags; `None` when the capture ends before.
    pub fn ip_offset(&self) -> Option<usize> {
        let mut at = 12;
        while matches!(self.bytes.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
            at += 4;
        }
        Some(at + 2)
    }

    /// The IP packet, as far as it was captured.
    pub fn ip(&self) -> &[u8] {
        self.ip_offset()
            .and_then(|offset| self.bytes.get(offset..))
            .unwrap_or_default()
    }
}
