//! `Archive::add_node`, `add_unread_node`: add a node to an archive. `Archive::write`: writes the archive to a file.
//! The same content always results in the same bytes.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use crate::{Archive, NodeEntry, SavedNode};

/// Maximum length of a folder name. A ustar header has space for at most 155 bytes of path before the file name.
const MAX_FOLDER: usize = 120;

impl Archive {
    /// Adds a node that was read. `unread`: the reason why a part of the node could not be read.
    pub fn add_node(&mut self, name: &str, node: SavedNode, unread: Option<String>) {
        let folder = match name.get(MAX_FOLDER..).is_some_and(|rest| !rest.is_empty()) {
            true => format!("{}-{}", &name[..MAX_FOLDER], self.manifest.nodes.len()),
            false => name.to_owned(),
        };
        self.manifest.nodes.push(NodeEntry { name: name.to_owned(), folder: Some(folder), unread });
        self.nodes.insert(name.to_owned(), node);
    }

    /// Adds a node that was not read, with the reason.
    pub fn add_unread_node(&mut self, name: &str, why: String) {
        self.manifest.nodes.push(NodeEntry { name: name.to_owned(), folder: None, unread: Some(why) });
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// Fails if `to` cannot be written.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let Self { manifest, nodes, objects, logs } = self;
        let mut tar = Builder::new(GzEncoder::new(to, Compression::default()));
        let mut file = |path: &str, content: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_path(path)?;
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(manifest.taken_at.as_second()).unwrap_or_default());
            header.set_cksum();
            tar.append(&header, content)
        };
        file("manifest.json", &serde_json::to_vec_pretty(manifest)?)?;
        for entry in &manifest.nodes {
            let (Some(folder), Some(node)) = (&entry.folder, nodes.get(&entry.name)) else { continue };
            file(&format!("nodes/{folder}/report.json"), &node.report)?;
            if !node.kernel_log.is_empty() {
                file(&format!("nodes/{folder}/kernel.log"), &node.kernel_log)?;
            }
            if !node.files.is_empty() {
                file(&format!("nodes/{folder}/files.json"), &serde_json::to_vec(&node.files)?)?;
            }
        }
        for (kind, list) in objects {
            file(&format!("kubernetes/{kind}.json"), list)?;
        }
        if !logs.is_empty() {
            file("logs.json", &serde_json::to_vec(logs)?)?;
        }
        tar.into_inner()?.finish()?.flush()
    }
}
