//! `ddpm-cli`.
fn main() {}
