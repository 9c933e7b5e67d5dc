//! The page of a budget, which api keeps rendered and compressed, against the same bytes in a file served by nginx.

use std::path::Path;

use anyhow::{Result, ensure};
use rustix::process::geteuid;

use super::http::{READ_CONNECTIONS, compare, write_people};
use super::limits::PAGE;
use super::records::BUDGET;
use super::report::{Row, thousands};
use super::wrk::Requests;
use crate::nginx::Nginx;
use crate::port::free_port;
use crate::response::HttpResponse;
use crate::scenario::new_dir;
use crate::stack::Stack;

const FILE: &str = "page";
/// What nginx makes itself, and what belongs to one answer.
const OTHER_HEADERS: [&str; 6] =
    ["connection", "content-length", "content-type", "date", "transfer-encoding", "x-request-id"];
const GZIP: &str = "wrk.headers[\"Accept-Encoding\"] = \"gzip\"";

/// Measures the maximum rate of the page as it is, and compressed.
///
/// # Errors
/// When a figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let stack = Stack::builder().start().await?;
    write_people(&stack).await?;
    let path = format!("/budgets/{BUDGET}");
    let ours = format!("{}{path}", stack.apis[0].url);
    let mut rows = Vec::new();
    for (form, encoding, script) in [("as it is", "identity", None), ("gzip", "gzip", Some(GZIP))] {
        let page = stack.system.get_with(&path, &[("accept-encoding", encoding)]).await?;
        let page = page.expect(200)?;
        ensure!((page.header("content-encoding") == "gzip") == script.is_some(), "{form}");
        let file = FileServer::start(&page).await?;
        let requests = |url| Requests { url, connections: READ_CONNECTIONS, script };
        let (rate, baseline) = compare("requests/s", requests(&ours), requests(&file.url)).await?;
        let bytes = thousands(page.body.len() as f64);
        let figure = format!("page of a budget, {form}, {bytes} bytes, 64 connections");
        rows.push(Row::share(&figure, "requests/s", rate, baseline, PAGE));
    }
    stack.kafka.delete_topic(&stack.topic).await?;
    Ok(rows)
}

/// An nginx that serves one file.
struct FileServer {
    url: String,
    _nginx: Nginx,
}

impl FileServer {
    async fn start(answer: &HttpResponse) -> Result<Self> {
        let (dir, port) = (new_dir("file-server")?, free_port()?);
        std::fs::write(dir.join(FILE), &answer.body)?;
        let config = dir.join("nginx.conf");
        std::fs::write(&config, configuration(&dir, port, answer))?;
        let (prefix, config) = (dir.display().to_string(), config.display().to_string());
        let url = format!("http://127.0.0.1:{port}/{FILE}");
        let arguments = ["-p", &prefix, "-c", &config, "-e", "stderr"];
        let nginx = Nginx::start("file-server", &dir, "nginx", arguments, &url).await?;
        Ok(Self { url, _nginx: nginx })
    }
}

fn configuration(dir: &Path, port: u16, answer: &HttpResponse) -> String {
    let dir = dir.display();
    // As root, nginx would run its workers as a user without access to the folder.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path \"{dir}/tmp\";"))
        .join(" ");
    let names = answer.headers.keys().map(|name| name.as_str());
    let headers: String = names
        .filter(|name| !OTHER_HEADERS.contains(name))
        .map(|name| add_header(name, answer.header(name)))
        .collect();
    format!(
        "daemon off; {user} worker_processes auto; pid \"{dir}/nginx.pid\"; error_log stderr crit;
         events {{ worker_connections 1024; }}
         http {{
           {temporary}
           access_log off; server_tokens off; sendfile on; tcp_nopush on; etag off; open_file_cache max=8;
           keepalive_requests 1000000000;
           default_type {content_type};
           server {{ listen 127.0.0.1:{port} backlog=1024; root \"{dir}\"; {headers} }}
         }}",
        content_type = quoted(answer.header("content-type")),
    )
}

fn add_header(name: &str, value: &str) -> String {
    format!("add_header {name} {};\n", quoted(value))
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn nginx_sends_the_headers_of_the_answer_but_those_it_makes_itself() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("content-length", "5"),
            ("etag", "\"7.gz\""),
            ("content-security-policy", "default-src 'none'; base-uri 'none'"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let answer = HttpResponse { status: 200, headers, body: Vec::new() };
        let configuration = configuration(Path::new("/dir"), 80, &answer);
        for line in [
            "default_type \"text/html; charset=utf-8\";",
            "add_header etag \"\\\"7.gz\\\"\";",
            "add_header content-security-policy \"default-src 'none'; base-uri 'none'\";",
        ] {
            assert!(configuration.contains(line), "{line} in {configuration}");
        }
        assert!(!configuration.contains("content-length"), "{configuration}");
    }
}
