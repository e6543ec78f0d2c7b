//! The Hub client, tested with a mock server on the loopback interface.

mod datasets;
mod faults;
mod hostile;
pub(crate) mod parquet_file;
mod push;
mod push_faults;
mod python;
mod server;
