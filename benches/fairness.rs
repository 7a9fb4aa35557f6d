//! What a tenant notices of another that asks for ten times its quota:
//! `cargo bench --bench fairness -- [--pairs N] [--without-quota]`.
//!
//! Node and generators have half of the processors each. In turns, a tenant that asks for 500 operations a second (half
//! reads, half writes) has the node to itself, and has beside it one with a quota of 300 operations a second that asks for
//! 3000. The p99 of the first may be 1.5 times as long, by the median of all pairs; otherwise the exit code is 1, as it is
//! when the first was refused anything, or the second got more than its quota, or less than nine tenths of it.

mod load;

use load::{Client, Failure, Node, Outcome, clock, median, offer, start, write};
use pairdb_node::rpc::pb;
use std::process::ExitCode;
use std::time::Duration;
use tonic::Code;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 10_000;
const CALM_RATE: f64 = 500.0;
const QUOTA: f64 = 300.0;
const GREEDY_FACTOR: f64 = 10.0;
const MOST_UNDER_WAY: usize = 2048;
const TIME: Duration = Duration::from_secs(4);
const MOST_RATIO: f64 = 1.5;

/// Reads or writes one of the tenant's keys.
async fn send(tenant: &'static str, mut client: Client, number: u64) -> Result<u64, Code> {
    let key = format!("key{:08}", number.wrapping_mul(7919) % KEYS);
    let answer = if number.is_multiple_of(2) {
        let read = pb::ReadRequest {
            tenant_id: tenant.to_owned(),
            key,
        };
        client.read(read).await.map(|_| ())
    } else {
        let write = pb::WriteRequest {
            tenant_id: tenant.to_owned(),
            vector_clock: clock(),
            ..write(&key, &[7; 100], &[])
        };
        client.write(write).await.map(|_| ())
    };
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(status.code()),
        _ => Ok(1),
    }
}

/// A tenant's load, from a thread of its own.
fn load(node: &Node, tenant: &'static str, rate: f64) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let clients = node.clients(4).await?;
        let call = |client, number| send(tenant, client, number);
        offer(&clients, rate, TIME, MOST_UNDER_WAY, call).await
    })
}

/// Both tenants at once: what became of the calm one's calls, and of the greedy one's.
fn load_both(node: &Node) -> Result<(Outcome, Outcome), Failure> {
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| {
            // Of this thread alone: where both share a processor, the greedy one's must not make the calm one's late.
            rustix::process::nice(19)?;
            load(node, "greedy", QUOTA * GREEDY_FACTOR)
        });
        let calm = load(node, "calm", CALM_RATE)?;
        let greedy = greedy
            .join()
            .map_err(|_panicked| "the greedy tenant's thread panicked")??;
        Ok((calm, greedy))
    })
}

fn main() -> Result<ExitCode, Failure> {
    let (mut pairs, mut quota) = (5, QUOTA);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--pairs" => pairs = args.next().ok_or("--pairs needs a number")?.parse()?,
            "--without-quota" => quota = 0.0,
            other => return Err(format!("{other}: there are --pairs N and --without-quota").into()),
        }
    }
    let node = start(&[
        ("PAIRDB__SERVER__MAX_QUEUE_DELAY", "100ms"),
        ("PAIRDB__TENANTS__QUOTA__GREEDY__OPERATIONS_PER_S", &format!("{quota}")),
    ])?;
    load_both(&node)?;
    let (mut ratios, mut is_fair) = (Vec::new(), true);
    for pair in 1..=pairs {
        let alone = load(&node, "calm", CALM_RATE)?;
        let (beside, greedy) = load_both(&node)?;
        ratios.push(beside.p99_ms() / alone.p99_ms());
        println!(
            "pair {pair}: p99 alone {:.2} ms, beside {:.2} ms; refused {:?}, {:?}; the other got {:.0}/s, and was refused {:?}",
            alone.p99_ms(),
            beside.p99_ms(),
            alone.failed,
            beside.failed,
            greedy.per_second(),
            greedy.failed
        );
        is_fair &= alone.failed.is_empty() && beside.failed.is_empty();
        // A second's worth may have been saved up.
        let most = QUOTA * (TIME.as_secs_f64() + 1.1) / TIME.as_secs_f64();
        is_fair &= (QUOTA * 0.9..most).contains(&greedy.per_second());
    }
    let ratio = median(ratios);
    println!(
        "p99 beside a tenant at {GREEDY_FACTOR} times its quota: {ratio:.2} of that alone (median; at most {MOST_RATIO})"
    );
    Ok(if is_fair && ratio <= MOST_RATIO {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
