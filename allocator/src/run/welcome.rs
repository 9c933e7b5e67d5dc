//! What somebody who starts the product sees first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use api::DEFAULT_BUDGET;

/// Where to look, and three lines that work as printed, however fast they follow each other: the second waits until the
/// first is counted, which takes some hundredths of a second.
pub fn welcome(listen: SocketAddr, data: Option<&Path>) -> String {
    let url = format!("http://{}", reachable(listen));
    let budget = format!("{url}/v1/budgets/{DEFAULT_BUDGET}");
    let data = data.map(|dir| format!(", data in {}", dir.display())).unwrap_or_default();
    format!(
        r#"
The Tax Budget Allocator runs on {url}{data}

Say how you would split the taxes, see what is counted of it, and the average of everyone:

  curl -s -X POST {budget}/submissions -H 'Content-Type: application/json' -d '{{"person": "p-1", "allocation": {{"health": 40, "education": 35.5, "defence": 24.5}}}}'
  curl -sf --retry 5 --retry-all-errors {budget}/submissions/p-1
  curl -s {budget}/aggregate

Budgets: {url}/v1/budgets   Health: {url}/readyz   Metrics: {url}/metrics
Ctrl-C ends it; whatever was acknowledged stays.

"#
    )
}

/// An address that a client on this machine can use.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_shown_as_one_that_can_be_reached() {
        let url = |listen: [u8; 4]| welcome(SocketAddr::from((listen, 8000)), None);
        assert!(url([0, 0, 0, 0]).contains("runs on http://127.0.0.1:8000\n"));
        assert!(url([10, 0, 0, 7]).contains("runs on http://10.0.0.7:8000\n"));
    }
}
