//! `allocator run`: all services in one process with their own data directory.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::port::free_port;
use crate::process::binary;
use crate::scenario;
use crate::service::Service;
use crate::system::System;

const TOKEN_FILE: &str = "admin.token";

/// `allocator run`.
#[derive(Debug)]
pub struct Embedded {
    /// The process.
    pub service: Service,
    /// HTTP client of the process.
    pub system: System,
    /// The data directory.
    pub data: PathBuf,
}

impl Embedded {
    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When the process does not become ready.
    pub async fn start() -> Result<Self> {
        let dir = scenario::new_dir("embedded")?;
        let data = dir.join("data");
        Self::start_on(&dir, data).await
    }

    /// Starts the process with its log in `dir` and its data in `data`, and waits until it is ready.
    ///
    /// # Errors
    /// When the process does not become ready.
    pub async fn start_on(dir: &Path, data: PathBuf) -> Result<Self> {
        Self::start_with(dir, data, &[]).await
    }

    /// Starts the process with additional settings, `section.key=value`, and waits until it is ready.
    ///
    /// # Errors
    /// When the process does not become ready.
    pub async fn start_with(dir: &Path, data: PathBuf, settings: &[&str]) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut arguments = vec![
            "run".to_owned(),
            "--set".to_owned(),
            format!("allocator.listen={address}"),
            "--set".to_owned(),
            format!("sqlite.dir={}", data.display()),
        ];
        for setting in settings {
            arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
        }
        let url = format!("http://{address}");
        let program = binary("allocator")?;
        let name = "allocator".to_owned();
        let mut service = Service::start(name, dir, program, arguments, Vec::new(), url.clone())?;
        service.ready().await?;
        let token = std::fs::read_to_string(data.join(TOKEN_FILE))?;
        let system = System::new(vec![url.clone()], vec![url])?.with_token(token.trim())?;
        Ok(Self { service, system, data })
    }

    /// The file of the administrator's token.
    pub fn token_file(&self) -> PathBuf {
        self.data.join(TOKEN_FILE)
    }
}
