//! Ports of the loopback for what a test starts. None is given twice, and none can be taken meanwhile by somebody's
//! outgoing connection: Linux begins at 32,768 with those (`net.ipv4.ip_local_port_range`).

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Above those of a stack of its own (`tests/stack.rs`), below those of servers of our own (`own_servers`).
const FIRST: u16 = 12_000;
const COUNT: u16 = 8_000;

/// A port that nobody listens on and that this program gives nobody else.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Two test programs at once begin at different ports.
    let start = (std::process::id() % u32::from(COUNT / 100)) as u16 * 100;
    (0..COUNT)
        .map(|_| FIRST + (start + TRIED.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| is_free(*port))
        .context("no free port")
}

/// Whether nobody listens on a port of the loopback.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
