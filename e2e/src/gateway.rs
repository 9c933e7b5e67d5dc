//! The gateway in front of a stack: Debian's nginx, configured and started by `local/gateway`.

use anyhow::{Result, bail};

use crate::nginx::Nginx;
use crate::port::free_port;
use crate::process::workspace;
use crate::scenario;
use crate::stack::Stack;

/// A running nginx with one address for all services.
#[derive(Debug)]
pub struct Gateway {
    /// `http://host:port`
    pub url: String,
    /// The process.
    pub nginx: Nginx,
}

impl Gateway {
    /// Starts a gateway in front of a stack with two ingests and two APIs.
    ///
    /// # Errors
    /// When nginx does not start.
    pub async fn start(stack: &Stack) -> Result<Self> {
        let ([ingest_1, ingest_2], [api_1, api_2]) =
            (&stack.system.writes[..], &stack.system.reads[..])
        else {
            bail!("the gateway needs two ingests and two APIs");
        };
        Self::start_for([ingest_1, ingest_2, api_1, api_2].map(|url| port_of(url))).await
    }

    /// Starts a gateway in front of the ports of two ingests and two APIs.
    ///
    /// # Errors
    /// When nginx does not start.
    pub async fn start_for(services: [&str; 4]) -> Result<Self> {
        let dir = scenario::new_dir("gateway")?;
        let dir_argument = dir.display().to_string();
        let script = workspace().join("local/gateway").display().to_string();
        let port = free_port()?.to_string();
        let url = format!("http://127.0.0.1:{port}");
        let arguments = [&dir_argument, &port].into_iter().map(String::as_str).chain(services);
        let ready_url = format!("{url}/.gateway/livez");
        let nginx = Nginx::start("gateway", &dir, &script, arguments, &ready_url).await?;
        Ok(Self { url, nginx })
    }
}

fn port_of(url: &str) -> &str {
    url.rsplit(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::path::Path;
    use std::thread;

    use reqwest::Method;

    use super::*;

    fn children(pid: u32) -> Vec<String> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap().split_whitespace().map(str::to_owned).collect()
    }

    /// Starts a service that responds to every request with its name. Returns its port.
    fn fake_service(name: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let head = BufReader::new(connection.try_clone().unwrap()).lines();
                head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                let length = name.len();
                let _ = write!(
                    connection,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{name}"
                );
            }
        });
        port
    }

    #[test]
    fn reads_and_admin_requests_go_to_an_api_and_other_writes_to_an_ingest() {
        scenario::scenario(async || {
            let services = [
                fake_service("ingest"),
                fake_service("ingest"),
                fake_service("api"),
                fake_service("api"),
            ];
            let gateway = Gateway::start_for(services.each_ref().map(String::as_str)).await?;
            for (method, path, service) in [
                (Method::GET, "/v1/budgets/taxes", "api"),
                (Method::GET, "/v1/budgets/taxes/export?format=csv", "api"),
                (Method::PUT, "/v1/budgets/taxes", "ingest"),
                (Method::POST, "/v1/budgets/taxes/submissions", "ingest"),
                (Method::GET, "/v1/admin/jobs", "api"),
                (Method::POST, "/v1/admin/jobs", "api"),
                (Method::POST, "/v1/admin/dead-letters/3.1042/replay", "api"),
                (Method::DELETE, "/v1/admin/jobs/7?now=1", "api"),
                (Method::POST, "/v1/admin", "api"),
                (Method::POST, "/v1/administration", "ingest"),
                (Method::GET, "/", "api"),
                (Method::GET, "/budgets/taxes?c.health=40&do=check", "api"),
                (Method::GET, "/budgets/taxes/mine", "api"),
                (Method::POST, "/budgets/taxes/submit", "ingest"),
                (Method::GET, "/assets/0123456789abcdef/page.css", "api"),
            ] {
                let url = format!("{}{path}", gateway.url);
                let response = crate::http_client::builder()
                    .build()?
                    .request(method.clone(), url)
                    .send()
                    .await?;
                assert_eq!(response.text().await?, service, "{method} {path}");
            }
            Ok(())
        });
    }

    #[test]
    fn browsers_get_a_page_and_scripts_a_problem_while_no_service_is_reachable() {
        scenario::scenario(async || {
            // No service listens on port 9.
            let gateway = Gateway::start_for(["9", "9", "9", "9"]).await?;
            let client = crate::http_client::builder().build()?;
            for (path, accept, media_type) in [
                ("/", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
                ("/budgets/taxes/mine", "text/html", "text/html; charset=utf-8"),
                ("/budgets/taxes/mine", "application/json", "application/problem+json"),
                ("/v1/budgets", "text/html", "application/problem+json"),
            ] {
                let request = client.get(format!("{}{path}", gateway.url)).header("accept", accept);
                let response = request.send().await?;
                assert_eq!(response.status(), 503, "{path} {accept}");
                assert_eq!(response.headers()["content-type"], media_type, "{path} {accept}");
                assert_eq!(response.headers()["retry-after"], "1", "{path} {accept}");
            }
            Ok(())
        });
    }

    #[test]
    fn dropping_a_gateway_stops_its_worker_and_frees_its_port() {
        scenario::scenario(async || {
            // No service listens on port 9, and this test sends no request.
            let gateway = Gateway::start_for(["9", "9", "9", "9"]).await?;
            let address = gateway.url.trim_start_matches("http://").to_owned();
            let workers = children(gateway.nginx.pid());
            assert!(!workers.is_empty(), "nginx has no worker");
            drop(gateway);
            TcpListener::bind(address)?;
            for worker in workers {
                assert!(
                    !Path::new("/proc").join(&worker).exists(),
                    "worker {worker} is still running"
                );
            }
            Ok(())
        });
    }
}
