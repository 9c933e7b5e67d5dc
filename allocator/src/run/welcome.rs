//! The text that `allocator run` prints once it is ready.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use api::DEFAULT_BUDGET;

use super::TOKEN_FILE;

/// Builds the welcome text: the pages, and three commands that work as printed.
///
/// The second command retries until the submission of the first is folded, which takes some tens of milliseconds.
pub fn welcome(listen: SocketAddr, data: Option<&Path>) -> String {
    text(listen, data, std::io::stdout().is_terminal())
}

/// `for_a_person` is whether a person reads the text: a token is not for a file or a log.
fn text(listen: SocketAddr, data: Option<&Path>, for_a_person: bool) -> String {
    let url = format!("http://{}", reachable(listen));
    let budget = format!("{url}/v1/budgets/{DEFAULT_BUDGET}");
    let administrator = administrator(&url, data, for_a_person);
    let data = data.map(|dir| format!(", data in {}", dir.display())).unwrap_or_default();
    format!(
        r#"
The Tax Budget Allocator runs on {url}{data}

Open {url}/ in a browser: split the taxes there, and compare with everyone's average.

The same by hand: submit how you would split the taxes, read your allocation back, and read the average of all people:

  curl -s -X POST {budget}/submissions -H 'Content-Type: application/json' -d '{{"person": "p-1", "allocation": {{"health": 40, "education": 35.5, "defence": 24.5}}}}'
  curl -sf --retry 5 --retry-all-errors {budget}/submissions/p-1
  curl -s {budget}/aggregate

{administrator}
Budgets: {url}/v1/budgets   Health: {url}/readyz   Metrics: {url}/metrics
Ctrl-C stops it; acknowledged submissions are kept.

"#
    )
}

/// Names the administrators' page: with the token as a fragment, which browsers do not send, if a person reads it.
fn administrator(url: &str, data: Option<&Path>, for_a_person: bool) -> String {
    let Some(path) = data.map(|dir| dir.join(TOKEN_FILE)) else {
        return format!("Administer it on {url}/admin");
    };
    // The operator may have replaced the first token by others.
    let token = std::fs::read_to_string(&path).ok().filter(|_| for_a_person);
    let fragment = token.map(|token| format!("#token={}", token.trim())).unwrap_or_default();
    let path = path.display();
    format!("Administer it on {url}/admin{fragment}\nThe administrator's token is in {path}")
}

/// Replaces an unspecified address with loopback, which a client on this machine can connect to.
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
    fn the_page_is_named_before_the_commands() {
        let text = welcome(SocketAddr::from(([127, 0, 0, 1], 8000)), None);
        assert!(text.find("http://127.0.0.1:8000/ ") < text.find("curl"));
    }

    #[test]
    fn only_a_person_gets_the_link_with_the_token() -> std::io::Result<()> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8000));
        let dir = tempfile::tempdir()?;
        assert!(text(listen, Some(dir.path()), true).contains("/admin\nThe"));
        std::fs::write(dir.path().join(TOKEN_FILE), "s3cret\n")?;
        let shown = text(listen, Some(dir.path()), true);
        assert!(shown.contains("Administer it on http://127.0.0.1:8000/admin#token=s3cret\n"));
        let logged = text(listen, Some(dir.path()), false);
        assert!(!logged.contains("s3cret") && logged.contains("admin.token\n"), "{logged}");
        Ok(())
    }

    #[test]
    fn an_unspecified_listen_address_is_printed_as_loopback() {
        let url = |listen: [u8; 4]| welcome(SocketAddr::from((listen, 8000)), None);
        assert!(url([0, 0, 0, 0]).contains("runs on http://127.0.0.1:8000\n"));
        assert!(url([10, 0, 0, 7]).contains("runs on http://10.0.0.7:8000\n"));
    }
}
