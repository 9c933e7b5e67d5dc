//! The gateway in front of a stack: Debian's nginx with the configuration of `local/`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Process, free_port, workspace};
use crate::scenario;
use crate::stack::Stack;

/// One address for everything.
#[derive(Debug)]
pub struct Gateway {
    /// `http://host:port`
    pub url: String,
    _process: Process,
}

impl Gateway {
    /// Starts one in front of a stack of two ingests and two APIs.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(stack: &Stack) -> Result<Self> {
        let dir = scenario::new_dir("gateway")?;
        for folder in ["body", "proxy", "tmp"] {
            fs::create_dir(dir.join(folder))?;
        }
        let port = free_port()?;
        let template = fs::read_to_string(workspace().join("local/config/nginx.conf.in"))?;
        let config = filled(&template, stack, &dir, port)?;
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        let arguments =
            ["-p", &dir.display().to_string(), "-c", &file.display().to_string(), "-e", "stderr"];
        let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists());
        let nginx = nginx
            .context("nginx is not installed: run `local/up` once, or `apt install nginx-light`")?;
        let mut process = Process::start("gateway", &dir, nginx, &arguments.map(str::to_owned))?;
        let url = format!("http://127.0.0.1:{port}");
        process.ready(&format!("{url}/.gateway/livez"), Duration::from_secs(10)).await?;
        Ok(Self { url, _process: process })
    }
}

fn filled(template: &str, stack: &Stack, dir: &Path, port: u16) -> Result<String> {
    let port_of = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
    let [ingest_one, ingest_two] = &stack.system.writes[..] else {
        anyhow::bail!("the gateway is for two ingests");
    };
    let [api_one, api_two] = &stack.system.reads[..] else {
        anyhow::bail!("the gateway is for two APIs");
    };
    // Started by root, nginx would give its workers to a user who may not read the folder.
    let root = fs::metadata("/proc/self")
        .is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0);
    let config = template
        .replace("@USER@", if root { "user root root;" } else { "" })
        .replace("@DATA@", &dir.display().to_string())
        .replace("@PORT@", &port.to_string())
        .replace("@INGEST_ONE@", &port_of(ingest_one))
        .replace("@INGEST_TWO@", &port_of(ingest_two))
        .replace("@API_ONE@", &port_of(api_one))
        .replace("@API_TWO@", &port_of(api_two));
    ensure!(!config.contains('@'), "the gateway's template has blanks that are not known here");
    Ok(config)
}
