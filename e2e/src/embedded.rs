//! Everything in one process, with its data in a folder of its own.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{binary, free_port};
use crate::scenario;
use crate::stack::Service;
use crate::system::System;

/// `allocator run`.
#[derive(Debug)]
pub struct Embedded {
    /// The process.
    pub service: Service,
    /// HTTP to it.
    pub system: System,
    /// Where its data is.
    pub data: PathBuf,
}

impl Embedded {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start() -> Result<Self> {
        let dir = scenario::new_dir("embedded")?;
        let data = dir.join("data");
        let address = format!("127.0.0.1:{}", free_port()?);
        let arguments = [
            "run".to_owned(),
            "--set".to_owned(),
            format!("allocator.listen={address}"),
            "--set".to_owned(),
            format!("sqlite.dir={}", data.display()),
        ];
        let url = format!("http://{address}");
        let program = binary("allocator")?;
        let mut service =
            Service::start("allocator".into(), &dir, program, arguments.to_vec(), url.clone())?;
        service.ready().await?;
        Ok(Self { service, system: System::new(vec![url.clone()], vec![url])?, data })
    }
}
