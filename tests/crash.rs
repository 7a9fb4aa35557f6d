//! The whole process is killed under load, again and again: every acknowledged write is there afterwards, and no delete
//! is undone. 50 kills; `PAIRDB_TEST_KILLS=1000` makes it more.

mod common;

use common::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WRITERS: u64 = 16;
const KEYS_PER_WRITER: u64 = 20;

/// What a writer knows of a key: the last acknowledged state, and the states tried since whose outcome is unknown.
/// [`None`] is a deleted key, or one never written.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: Option<u64>,
    unknown: Vec<Option<u64>>,
}

/// Writes and deletes its own keys until told to stop, or until the node is gone.
async fn writer(
    addr: String,
    writer: u64,
    mut known: HashMap<u64, Known>,
    mut counter: u64,
    stop: Arc<AtomicBool>,
) -> (HashMap<u64, Known>, u64) {
    let mut client = client(addr);
    while !stop.load(Ordering::Relaxed) {
        counter += 1;
        let number = counter % KEYS_PER_WRITER;
        let key = format!("w{writer}-k{number}");
        let clock = [("c", i64::try_from(counter).unwrap())];
        let state = (counter % 7 != 3).then_some(counter);
        let call = async {
            match state {
                Some(value) => client
                    .write(write(&key, value.to_string().repeat(20).as_bytes(), &clock))
                    .await
                    .map(drop),
                None => client.delete(delete(&key, &clock)).await.map(drop),
            }
        };
        // A client may wait for a node that is dead; one that lives answers sooner.
        let result = tokio::time::timeout(PATIENCE, call)
            .await
            .unwrap_or_else(|_elapsed| Err(tonic::Status::deadline_exceeded("no answer")));
        let entry = known.entry(number).or_default();
        match result {
            Ok(()) => {
                *entry = Known {
                    acknowledged: state,
                    unknown: Vec::new(),
                }
            }
            Err(_) => entry.unknown.push(state),
        }
    }
    (known, counter)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_to_sigkill() {
    let kills: u64 = std::env::var("PAIRDB_TEST_KILLS").map_or(50, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    // Small, so that kills meet flushes, rotations and manifests.
    let environment = [
        ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "300KiB"),
        ("PAIRDB__COMMIT_LOG__SEGMENT_SIZE", "200KiB"),
        ("PAIRDB__LOGGING__LEVEL", "warn"),
    ];
    let mut writers: Vec<(HashMap<u64, Known>, u64)> = vec![(HashMap::new(), 0); WRITERS as usize];
    let mut checked = 0_u64;
    for round in 0..=kills {
        let mut node = Process::start(dir.path(), port, &environment);
        let mut client = client(&node.addr);
        for (number, (known, _)) in writers.iter_mut().enumerate() {
            for (key, state) in known {
                let name = format!("w{number}-k{key}");
                let found = match client.read(read(&name)).await {
                    Ok(response) => {
                        let text = String::from_utf8(response.into_inner().value).unwrap();
                        let value = text[..text.len() / 20].parse::<u64>().unwrap();
                        assert_eq!(text, value.to_string().repeat(20), "{name} holds a wrong value");
                        Some(value)
                    }
                    Err(status) => {
                        assert_eq!(status.code(), tonic::Code::NotFound, "{name}: {status}");
                        None
                    }
                };
                assert!(
                    found == state.acknowledged || state.unknown.contains(&found),
                    "round {round}: {name} holds {found:?}, but {state:?} was acknowledged"
                );
                *state = Known {
                    acknowledged: found,
                    unknown: Vec::new(),
                };
                checked += 1;
            }
        }
        if round == kills {
            assert_eq!(node.terminate(), Some(0), "an orderly stop exits with 0");
            break;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0_u64..)
            .zip(std::mem::take(&mut writers))
            .map(|(number, (known, counter))| {
                tokio::spawn(writer(node.addr.clone(), number, known, counter, Arc::clone(&stop)))
            })
            .collect();
        // A different moment each time.
        tokio::time::sleep(Duration::from_millis(100 + 37 * (round % 10))).await;
        node.kill();
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            writers.push(task.await.unwrap());
        }
    }
    let written: u64 = writers.iter().map(|(_, counter)| counter).sum();
    println!("{kills} kills, {written} writes tried, {checked} checks");
    assert!(written > kills * 100, "only {written} writes were tried");
}
