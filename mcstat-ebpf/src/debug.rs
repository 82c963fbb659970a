//! Debug messages from off the hot path, with the feature `log`; without it nothing is left of them.

/// Logs at level debug. Use it in functions of their own: a message is a lot of code on the stack.
#[cfg(feature = "log")]
macro_rules! debug {
    ($($message:tt)*) => {
        aya_log_ebpf::debug!((), $($message)*)
    };
}

#[cfg(not(feature = "log"))]
macro_rules! debug {
    ($format:literal $(, $argument:expr)*) => {{
        $( let _ = $argument; )*
    }};
}
