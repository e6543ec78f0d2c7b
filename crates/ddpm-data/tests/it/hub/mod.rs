//! The Hub client, tested with a mock server on the loopback interface.

mod datasets;
mod faults;
pub(crate) mod parquet_file;
mod server;
