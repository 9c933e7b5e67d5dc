//! Loopback ports for the processes of a test.
//!
//! No port is returned twice, and all are below 32,768, where Linux starts the ports of outgoing connections
//! (`net.ipv4.ip_local_port_range`).

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Above the ports of `tests/stack.rs`, below the ports of `own_servers`.
const FIRST: u16 = 12_000;
const COUNT: u16 = 8_000;

/// Returns a free port, each only once.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Concurrent test programs start at different ports.
    let start = (std::process::id() % u32::from(COUNT / 100)) as u16 * 100;
    (0..COUNT)
        .map(|_| FIRST + (start + TRIED.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| is_free(*port))
        .context("no free port")
}

/// Whether no process listens on a loopback port.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
