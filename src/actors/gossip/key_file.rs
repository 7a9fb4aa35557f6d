//! The file of the keys.
//!
//! Owns: reading it, in a bounded way. Does not own: what keys are (see [`super::wire`]), or when it is read again.

use super::wire::Keys;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file of keys that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Where the keys are.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// Name of the cluster, which goes into what they sign.
    pub cluster: String,
}

impl KeyFile {
    /// Reads it. Blocks.
    ///
    /// # Errors
    /// What is wrong with it, and where it is; not what it says.
    pub fn read(&self) -> Result<Keys, String> {
        let shown = self.path.display();
        let text = text(&self.path).map_err(|error| format!("gossip.key_file {shown} cannot be read: {error}"))?;
        Keys::parse(&text, &self.cluster).map_err(|why| format!("gossip.key_file {shown}: {why}"))
    }
}

/// Whoever opened a pipe would wait for what comes.
fn text(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is too large for keys"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_keys_is_refused_without_waiting_and_without_reading_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path| {
            let file = KeyFile {
                path: path.to_owned(),
                cluster: "c".to_owned(),
            };
            file.read().unwrap_err()
        };
        assert!(of(dir.path()).contains("no regular file"));
        assert!(of(Path::new("/dev/zero")).contains("no regular file"));
        for (content, expected) in [
            (vec![b'#'; (64 << 10) + 1], "too large"),
            (vec![0xff; 40], "no text"),
            (b"no key".to_vec(), "line 1 is no key"),
        ] {
            let path = dir.path().join("keys");
            fs::write(&path, content).unwrap();
            assert!(of(&path).contains(expected), "{}", of(&path));
        }
    }
}
