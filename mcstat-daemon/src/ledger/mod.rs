//! Pure accounting: values and a given time in, values out. No I/O, no clock, no async; imports neither tokio nor aya
//! nor kube.

pub mod snapshot;
