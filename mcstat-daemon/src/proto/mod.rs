//! Sans-IO codecs: bytes in, typed values out, and back. No sockets, no clock, no panics on any input.

pub mod ovsdb;
