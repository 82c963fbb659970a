//! Any bytes as any of the tables of `/proc/net`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcstat::proto::procnet;

fuzz_target!(|data: &[u8]| {
    let _ = (procnet::igmp(data), procnet::igmp6(data));
    let _ = (procnet::mcfilter(data), procnet::mcfilter6(data));
    let _ = (procnet::udp(data), procnet::udp6(data));
    let _ = (procnet::receive_errors(data), procnet::receive_errors6(data));
});
