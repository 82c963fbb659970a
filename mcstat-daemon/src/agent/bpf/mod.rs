//! Programs and maps: load, pin, check, attach, read, free.
