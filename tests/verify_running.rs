//! `verify` of a node that runs: what is being written is no damage, and what was durable is checked to its last byte.

mod common;

use common::*;
use pairdb_node::config::Config;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A node that has several tables, and compacts none.
fn config_with_tables(dir: &Path) -> Config {
    let mut config = config(dir);
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(32);
    config.compaction.workers = 0;
    config
}

/// Runs `verify`; returns whether it found all well, and what it said.
fn verify(config: &Config) -> (bool, String) {
    let data = config.storage.data_dir.to_str().unwrap();
    let output = binary(&["verify", "--data-dir", data]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn put_many(client: &Client, keys: std::ops::Range<u32>) {
    for n in keys {
        let key = format!("k{n}");
        client.clone().write(write(&key, &[7; 300], &[])).await.unwrap();
    }
}

/// The last byte of a file that is not zero: the log has zeros written ahead.
fn last_byte(file: &Path) -> u64 {
    let content = std::fs::read(file).unwrap();
    content.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

/// Changes a byte of a file in place: the node that runs has it open.
fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_what_is_durable_of_the_manifest_and_of_the_open_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_with_tables(dir.path());
    let node = start(&config).await;
    put_many(&client(node.address()), 0..500).await;
    let tables = || node.health().handles.published.load().tables.all().count();
    eventually("there are tables", async || tables() > 2).await;
    eventually("nothing is under way", async || {
        node.health().handles.published.load().sealed.is_empty()
    })
    .await;
    let (well, said) = verify(&config);
    assert!(well && said.contains("no damage"), "{said}");
    let open = config.commit_log_dir().join("commitlog-000000000001.log");
    let manifest = config.sstable_dir().join("MANIFEST");
    // Of a node that does not run, damage at the very end of either would pass for a write that a crash tore.
    for file in [&open, &manifest] {
        let last = last_byte(file);
        for at in [last, last / 2] {
            flip(file, at);
            let (well, said) = verify(&config);
            assert!(!well, "byte {at} of {}: {said}", file.display());
            assert!(
                said.contains(&format!("damage in {} at byte ", file.display())) && said.contains("damage in 1 place"),
                "byte {at}: {said}"
            );
            flip(file, at);
            let (well, said) = verify(&config);
            assert!(well, "{said}");
        }
    }
    // A manifest that is whole, but not this node's; and a segment and a manifest that are gone.
    let (kept, content) = (dir.path().join("kept"), std::fs::read(&manifest).unwrap());
    let named = |file: &Path, what: &str| {
        let (well, said) = verify(&config);
        assert!(
            !well && said.contains(file.to_str().unwrap()) && said.contains(what),
            "{said}"
        );
    };
    std::fs::write(&manifest, &content[..content.len() - 1]).unwrap();
    named(&manifest, "the file is shorter");
    std::fs::write(&manifest, &content).unwrap();
    for file in [&open, &manifest] {
        std::fs::rename(file, &kept).unwrap();
        named(file, "missing");
        std::fs::rename(&kept, file).unwrap();
    }
    assert!(verify(&config).0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_written_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with_tables(dir.path());
    config.commit_log.segment_size = bytesize::ByteSize::kib(64);
    config.compaction.workers = 2;
    let node = start(&config).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (client, stop) = (client(node.address()), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    put_many(&client, writer * 1000..writer * 1000 + 50).await;
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    // Flushing and deleting segments is what `verify` has to live with here,
    // so it goes on for as long as it takes to see the first one go.
    let first = config.commit_log_dir().join("commitlog-000000000001.log");
    let began = Instant::now();
    let mut verified = 0;
    while verified < 10 || first.exists() {
        let (well, said) = verify(&config);
        assert!(well && said.contains("no damage"), "{said}");
        verified += 1;
        assert!(began.elapsed() < PATIENCE, "no segment was deleted");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0, "it wrote all the while");
    }
    node.shutdown().await;
}
