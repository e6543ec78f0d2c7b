//! The Hub client, tested with a mock server on the loopback interface.

mod datasets;
mod faults;
mod hostile;
mod parquet;
mod parquet_file;
mod server;
