//! The layers of the source: `storage` knows nothing above it, `actors` knows no wire, and only `node` sees all.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .collect()
}

fn assert_free_of(layer: &str, forbidden: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(layer);
    let files = sources(&root);
    assert!(files.len() > 3, "no sources below {}", root.display());
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for name in forbidden {
                assert!(
                    !code.contains(name),
                    "{}:{}: the layer {layer} names {name}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn storage_knows_no_runtime_no_actor_and_no_wire() {
    assert_free_of(
        "storage",
        &[
            "crate::actors",
            "crate::rpc",
            "crate::node",
            "crate::config",
            "tokio",
            "ractor",
            "tonic",
            "prost",
        ],
    );
}

#[test]
fn storage_opens_files_and_reads_clocks_through_its_traits_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage");
    for (owners, names) in [
        (&["fs/real.rs"][..], &["std::fs", "rustix::fs"][..]),
        (&["storage/priority.rs"], &["rustix::process", "rustix::thread"]),
        (&["fs/real.rs", "storage/priority.rs"], &["rustix"]),
        (&["time.rs"], &["SystemTime", "Instant::now", "thread::sleep"]),
    ] {
        let owns = |file: &PathBuf| owners.iter().any(|owner| file.ends_with(owner));
        assert_eq!(
            sources(&root).iter().filter(|file| owns(file)).count(),
            owners.len(),
            "{owners:?}"
        );
        for file in sources(&root).iter().filter(|file| !owns(file)) {
            let text = fs::read_to_string(file).unwrap();
            for name in names {
                assert!(!text.contains(name), "{} uses {name}", file.display());
            }
        }
    }
}

#[test]
fn actors_know_no_wire() {
    assert_free_of(
        "actors",
        &["crate::rpc", "crate::node", "crate::config", "tonic", "prost"],
    );
}

/// Work that went past it would be done when the system likes, also in a simulation. Streams to other nodes, and walks that a
/// client takes over the wire, are in none.
#[test]
fn actors_start_threads_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/actors");
    let is_simulated = |file: &PathBuf| {
        let path = file.strip_prefix(&root).unwrap();
        !path.starts_with("streaming") && !["threads.rs", "ranges.rs"].contains(&path.to_str().unwrap())
    };
    let files: Vec<PathBuf> = sources(&root).into_iter().filter(is_simulated).collect();
    assert!(files.len() > 30, "{} sources", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for name in ["spawn_blocking", "thread::spawn", "thread::Builder", "thread::scope"] {
            assert!(!text.contains(name), "{} uses {name}", file.display());
        }
    }
}

#[test]
fn rpc_does_not_reach_around_the_actors() {
    assert_free_of(
        "rpc",
        &[
            "crate::node",
            "crate::config",
            "ractor",
            "storage::tables",
            "storage::recovery",
        ],
    );
}
