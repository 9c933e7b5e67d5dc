//! Loopback ports for the processes of a test.
//!
//! No port is returned twice, also not to test programs that run at the same time. All are below 32,768, where Linux
//! starts the ports of outgoing connections (`net.ipv4.ip_local_port_range`).

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// Above the ports of `tests/stack.rs`, below the ports of `own_servers`.
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 80;
const PORTS_IN_BLOCK: u16 = 100;

/// The ports that only this program uses.
struct Claimed {
    /// Of the last block.
    unused: Range<u16>,
    next_block: u16,
    /// The kernel unlocks the files when this program has exited.
    locks: Vec<File>,
}

/// Returns a free port, each only once.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16> {
    static CLAIMED: Mutex<Claimed> =
        Mutex::new(Claimed { unused: 0..0, next_block: 0, locks: Vec::new() });
    let mut claimed = CLAIMED.lock();
    loop {
        if let Some(port) = claimed.unused.find(|port| is_free(*port)) {
            return Ok(port);
        }
        claimed.claim_block()?;
    }
}

impl Claimed {
    /// Claims the next hundred ports that no other test program has claimed.
    fn claim_block(&mut self) -> Result<()> {
        let dir = std::env::temp_dir().join("allocator-e2e-ports");
        fs::create_dir_all(&dir)?;
        // All users share the folder, and its files are their owners'. Fails without harm if another user made the
        // folder.
        let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777));
        while self.next_block < BLOCKS {
            let first = FIRST + self.next_block * PORTS_IN_BLOCK;
            self.next_block += 1;
            let file = File::options().create(true).append(true).open(dir.join(first.to_string()));
            // The file of another user is a block of another user.
            let Ok(file) = file else { continue };
            if file.try_lock().is_ok() {
                self.unused = first..first + PORTS_IN_BLOCK;
                self.locks.push(file);
                return Ok(());
            }
        }
        None.context("no free port")
    }
}

/// Whether no process listens on a loopback port.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
