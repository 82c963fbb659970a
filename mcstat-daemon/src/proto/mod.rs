//! Sans-IO codecs: bytes in, typed values out, and back. No sockets, no clock, no panics on any input.

pub mod checksum;
pub mod control;
mod cursor;
pub mod igmp;
pub mod mdb;
pub mod mld;
pub mod openflow;
pub mod ovsdb;
pub mod procnet;
pub mod wire;
