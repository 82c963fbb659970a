//! Text for people: ages and padded columns, both as kubectl prints them. Pure: no I/O, no colour, time is a parameter.

pub mod age;
pub mod columns;
