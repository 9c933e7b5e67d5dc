//! Which account of this machine has the other end of a connection.
//!
//! A proxy on this machine that adds no header, as nginx by default, sends the requests of the internet like a client
//! of this machine does. But a proxy runs under an account of its own, and the kernel knows the account of each socket.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// The account that has the other end of a connection. The kernel is asked at the first use.
#[derive(Debug, Clone)]
pub(crate) struct PeerAccount(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    /// This process's end, if it is known.
    local: Option<SocketAddr>,
    peer: SocketAddr,
    is_own: OnceLock<bool>,
}

impl PeerAccount {
    pub fn new(local: Option<SocketAddr>, peer: SocketAddr) -> Self {
        Self(Arc::new(Connection { local, peer, is_own: OnceLock::new() }))
    }

    /// Whether the account is that of this process. `false` if the kernel does not say: on another machine, after the
    /// client has closed the connection, and elsewhere than on Linux.
    pub fn is_own(&self) -> bool {
        let Connection { local, peer, is_own } = &*self.0;
        *is_own.get_or_init(|| {
            let owner = local.and_then(|local| kernel::owner_of_open_socket(*peer, local));
            owner.is_some_and(|owner| owner == rustix::process::geteuid().as_raw())
        })
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Once;

    use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::SockDiagMessage;
    use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
    use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
    use netlink_sys::Socket;
    use netlink_sys::protocols::NETLINK_SOCK_DIAG;

    const MAX_ANSWER_BYTES: usize = 4_096;

    /// `ENOENT`: the socket has been closed. A kernel that cannot answer at all says the same.
    const NO_SUCH_SOCKET: i32 = 2;

    /// Clients decide how often the kernel is asked, so that only the first failure is logged.
    static FIRST_FAILURE: Once = Once::new();

    /// Means a socket by its addresses alone.
    const NO_COOKIE: [u8; 8] = [0xff; 8];

    /// Returns the user id of the account that has a connected socket of this machine.
    pub fn owner_of_open_socket(of: SocketAddr, to: SocketAddr) -> Option<u32> {
        match query(of, to) {
            // A socket that its process has closed belongs to nobody, and is shown as root's.
            Ok(NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)))
                if socket.header.state == TCP_ESTABLISHED && socket.header.inode != 0 =>
            {
                Some(socket.header.uid)
            }
            Ok(NetlinkPayload::Error(answer)) if answer.raw_code().abs() != NO_SUCH_SOCKET => {
                warn_once(&answer.to_io());
                None
            }
            Ok(_) => None,
            Err(error) => {
                warn_once(&error);
                None
            }
        }
    }

    fn warn_once(error: &io::Error) {
        FIRST_FAILURE.call_once(|| {
            tracing::warn!(
                %error,
                "the kernel does not say which account a client has: no client counts as one of this machine"
            );
        });
    }

    fn query(of: SocketAddr, to: SocketAddr) -> io::Result<NetlinkPayload<SockDiagMessage>> {
        let (source_address, destination_address) =
            (of.ip().to_canonical(), to.ip().to_canonical());
        let family = match source_address {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        };
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: of.port(),
                destination_port: to.port(),
                source_address,
                destination_address,
                interface_id: 0,
                cookie: NO_COOKIE,
            },
        });
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);

        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        // The kernel answers while it takes the request, so nothing is waited for.
        socket.set_non_blocking(true)?;
        socket.send(&bytes, 0)?;
        let mut answer = [0; MAX_ANSWER_BYTES];
        let length = socket.recv(&mut &mut answer[..], 0)?;
        let answer = answer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer);
        Ok(answer.map_err(io::Error::other)?.payload)
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    pub fn owner_of_open_socket(
        _of: std::net::SocketAddr,
        _to: std::net::SocketAddr,
    ) -> Option<u32> {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connected(listener: &TcpListener, to: &str) -> (TcpStream, TcpStream, PeerAccount) {
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((to, port)).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let account = PeerAccount::new(stream.local_addr().ok(), peer);
        (client, stream, account)
    }

    #[test]
    fn an_open_connection_of_the_same_account_is_its_own_by_ipv4_and_ipv6() {
        for (address, to) in
            [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.1")]
        {
            let listener = TcpListener::bind(address).unwrap();
            let (_client, _stream, account) = connected(&listener, to);
            assert!(account.is_own(), "{address} from {to}");
        }
    }

    #[test]
    fn a_connection_that_its_client_has_closed_is_of_no_account() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (client, _stream, account) = connected(&listener, "127.0.0.1");
        drop(client);
        assert!(!account.is_own());
    }

    #[test]
    fn an_unknown_connection_is_of_no_account() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        // Only a listener has this address.
        assert!(!PeerAccount::new(Some(local), local).is_own());
        assert!(!PeerAccount::new(Some(local), "192.0.2.1:5".parse().unwrap()).is_own());
    }
}
