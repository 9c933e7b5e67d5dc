//! The style sheet, the scripts and the icon of the pages, embedded under one digest.
//!
//! One digest over all files, so that the scripts can import each other by relative paths.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::gzip::gzip;

/// An embedded file.
#[derive(Debug)]
pub struct Asset {
    /// The file's name.
    pub name: &'static str,
    /// The content.
    pub content: &'static [u8],
    /// The content, compressed.
    pub gzipped: Vec<u8>,
    /// The media type.
    pub media_type: &'static str,
}

/// All files of `page/assets/`.
#[derive(Debug)]
pub struct Assets {
    digest: String,
    files: Vec<Asset>,
}

/// Modules whose name begins with this are loaded on demand, not in advance.
const ON_DEMAND: &str = "lazy-";
/// Files whose name begins with this belong to the administrators' page alone.
const ADMIN: &str = "admin";
/// The script that other sites load, by an address that never changes.
pub const EMBED_SCRIPT: &str = "embed.js";

static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, content) in FILES {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let files = FILES.iter().map(|(name, content)| Asset {
        name,
        content,
        gzipped: gzip(content),
        media_type: media_type(name),
    });
    Assets { digest: hex::encode(&hash[..8]), files: files.collect() }
});

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

impl Assets {
    /// Returns the files, which are compressed at the first call.
    pub fn embedded() -> &'static Self {
        &ASSETS
    }

    /// The digest of all files, a part of their addresses.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns a file by name.
    pub fn get(&self, name: &str) -> Option<&Asset> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The path of all files, with a slash at its end.
    pub fn folder(&self) -> String {
        format!("/assets/{}/", self.digest)
    }

    /// The script modules that every page with a script needs, except `page.js` itself.
    pub fn modules(&self) -> impl Iterator<Item = &Asset> {
        self.files.iter().filter(|file| {
            file.name.ends_with(".js")
                && !["page.js", EMBED_SCRIPT].contains(&file.name)
                && !file.name.starts_with(ON_DEMAND)
                && !file.name.starts_with(ADMIN)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_load_is_small_and_every_file_is_found_by_name() {
        let assets = Assets::embedded();
        assert_eq!(assets.digest().len(), 16);
        assert!(assets.get("page.css").is_some_and(|file| file.media_type.starts_with("text/css")));
        assert!(
            assets
                .get("page.js")
                .is_some_and(|file| file.media_type.starts_with("text/javascript"))
        );
        assert!(assets.get("../Cargo.toml").is_none());
        let public = assets.files.iter().filter(|file| !file.name.starts_with(ADMIN));
        let bytes: usize = public.map(|file| file.gzipped.len()).sum();
        assert!(bytes < 50_000, "{bytes} bytes compressed");
        let embed = assets.get(EMBED_SCRIPT).map_or(usize::MAX, |file| file.gzipped.len());
        assert!(embed <= 1_536, "{embed} bytes compressed");
    }
}
