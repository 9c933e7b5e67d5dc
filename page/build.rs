//! Lists the files of `assets/` for `include_bytes!`, so that a new file needs no change of the code.
#![allow(missing_docs)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder =
        Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("assets");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let extension = file.extension().and_then(|extension| extension.to_str());
        let name = file.file_name().and_then(|name| name.to_str());
        if let (Some("css" | "js" | "svg"), Some(name)) = (extension, name) {
            let path = file.display().to_string();
            writeln!(list, "    ({name:?}, include_bytes!({path:?}).as_slice()),")
                .map_err(io::Error::other)?;
        }
    }
    list.push(']');
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("assets.rs"), list)
}
