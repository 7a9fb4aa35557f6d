use super::call::Calling;
use super::slowest::SLOWEST;
use super::traces::{Kept, Sampling, Traces};
use super::*;
use crate::actors::address_book::NodeAddress;
use crate::storage::looked::Looked;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::advance;

static SCAN: Operation = Operation {
    method: "Scan",
    name: "scan",
    is_timed: false,
};
static WRITE: Operation = Operation {
    method: "Write",
    name: "write",
    is_timed: true,
};
const DONE: Outcome = Outcome {
    code: 0,
    status: "OK",
    is_failure: false,
};
const FAILED: Outcome = Outcome {
    code: 14,
    status: "UNAVAILABLE",
    is_failure: true,
};

const REFUSED: Outcome = Outcome {
    code: 8,
    status: "RESOURCE_EXHAUSTED",
    is_failure: true,
};

fn traces(ratio: f64, slow_ms: u64) -> (Arc<Traces>, Receiver<Kept>) {
    let (sender, queue) = channel(1000);
    let slow = Duration::from_millis(slow_ms);
    (Traces::new(Sampling { ratio, slow }, Some(sender)), queue)
}

/// A request that takes so long.
async fn request(traces: &Traces, parent: Option<TraceContext>, took_ms: u64, outcome: Outcome) {
    let trail = traces.begin(&WRITE, parent, None).unwrap();
    advance(Duration::from_millis(took_ms)).await;
    traces.end(&trail, outcome);
}

fn kept(queue: &mut Receiver<Kept>) -> usize {
    std::iter::from_fn(|| queue.try_recv().ok()).count()
}

#[tokio::test(start_paused = true)]
async fn whoever_began_a_trace_decides_and_failed_and_slow_requests_are_kept_in_any_case() {
    let parent = |sampled| {
        Some(TraceContext {
            sampled,
            ..TraceContext::root()
        })
    };
    for (ratio, of_own) in [(0.0, 0), (1.0, 1)] {
        let (traces, mut queue) = traces(ratio, 100);
        request(&traces, None, 1, DONE).await;
        assert_eq!(kept(&mut queue), of_own);
        request(&traces, parent(true), 1, DONE).await;
        assert_eq!(kept(&mut queue), 1);
        request(&traces, parent(false), 1, DONE).await;
        assert_eq!(kept(&mut queue), 0);
        request(&traces, parent(false), 100, DONE).await;
        assert_eq!(kept(&mut queue), 1, "slow");
        request(&traces, parent(false), 1, FAILED).await;
        assert_eq!(kept(&mut queue), 1, "failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_walk_is_slow_by_one_of_its_parts_and_not_by_how_long_its_client_takes() {
    let after = async |ms| advance(Duration::from_millis(ms)).await;
    for (part_ms, is_kept) in [(60, false), (100, true)] {
        let (traces, mut queue) = traces(0.0, 100);
        let trail = traces.begin(&SCAN, None, None).unwrap();
        // Far more parts than hops that are kept; the last is the longest.
        for _ in 0..2 * MOST_HOPS {
            let now = Instant::now();
            trail.hop(WALK, (now, now), Detail::None);
            after(1000).await;
        }
        let queued = Instant::now();
        after(part_ms / 2).await;
        let begun = Instant::now();
        after(part_ms / 2).await;
        trail.hop(WALK, (queued, begun), Detail::None);
        traces.end(&trail, DONE);
        assert_eq!(kept(&mut queue) == 1, is_kept, "{part_ms} ms");
    }
    let (traces, mut queue) = traces(0.0, 0);
    let trail = traces.begin(&SCAN, None, None).unwrap();
    traces.end(&trail, DONE);
    assert_eq!(kept(&mut queue), 0, "with no limit none is slow");
}

#[tokio::test(start_paused = true)]
async fn of_failures_so_many_are_kept_in_a_second_and_the_rest_is_counted() {
    let (traces, mut queue) = traces(0.0, 100);
    for _ in 0..150 {
        request(&traces, None, 0, FAILED).await;
    }
    assert_eq!(kept(&mut queue), 100);
    assert_eq!(traces.counts.limited.load(Ordering::Relaxed), 50);
    advance(Duration::from_secs(1)).await;
    request(&traces, None, 0, FAILED).await;
    assert_eq!(kept(&mut queue), 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_leave_other_failures_their_room() {
    let (traces, mut queue) = traces(0.0, 100);
    for _ in 0..150 {
        request(&traces, None, 0, REFUSED).await;
    }
    assert_eq!(kept(&mut queue), 20);
    for _ in 0..150 {
        request(&traces, None, 0, FAILED).await;
    }
    assert_eq!(kept(&mut queue), 100);
    request(&traces, None, 100, REFUSED).await;
    assert_eq!(
        traces.counts.limited.load(Ordering::Relaxed),
        130 + 50 + 1,
        "a slow one is as others are"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_only_sampled_leaves_a_quarter_of_the_queue_to_what_failed_or_was_slow() {
    let (sender, mut queue) = channel(8);
    let slow = Duration::from_millis(100);
    let traces = Traces::new(Sampling { ratio: 1.0, slow }, Some(sender));
    for _ in 0..10 {
        request(&traces, None, 0, DONE).await;
    }
    assert_eq!(traces.counts.dropped.load(Ordering::Relaxed), 4);
    request(&traces, None, 0, FAILED).await;
    request(&traces, None, 100, DONE).await;
    assert_eq!(traces.counts.dropped.load(Ordering::Relaxed), 4);
    assert_eq!(kept(&mut queue), 8);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_failed_in_part_is_kept_as_a_failure() {
    let (traces, mut queue) = traces(0.0, 100);
    let trail = traces.begin(&WRITE, None, None).unwrap();
    along(Arc::clone(&trail), async { failed_in_part(FAILED) }).await;
    traces.end(&trail, DONE);
    assert_eq!(kept(&mut queue), 1);
    let noted = trail.noted();
    assert_eq!(noted.failure(), Some(FAILED));
    assert_eq!(
        noted.end.map(|(_, outcome)| outcome),
        Some(DONE),
        "as it is on the wire"
    );
}

#[tokio::test(start_paused = true)]
async fn what_has_no_answer_waited_until_its_end() {
    let (traces, _queue) = traces(0.0, 1000);
    let after = async |ms| advance(Duration::from_millis(ms)).await;
    for has_older_answer in [false, true] {
        let trail = traces.begin(&WRITE, None, None).unwrap();
        along(Arc::clone(&trail), async {
            after(1).await;
            if has_older_answer {
                resumed();
            }
            after(1).await;
            received(None);
            after(7).await;
        })
        .await;
        traces.end(&trail, FAILED);
        let hops = trail.noted().with_answer().hops;
        let answer = hops.last().unwrap();
        assert_eq!(
            (answer.name, answer.queue().as_millis(), answer.work().as_millis()),
            ("answer", 7, 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn reads_of_several_shards_have_their_own_times_and_are_one_hop_only_if_read_together() {
    let (traces, _queue) = traces(0.0, 1000);
    let trail = traces.begin(&WRITE, None, None).unwrap();
    let at = |ms| trail.started + Duration::from_millis(ms);
    let read = |begun, ended| {
        let found = Looked {
            filters: 1,
            ..Looked::default()
        };
        trail.hop_at("read", (at(1), at(begun), at(ended)), Detail::Read(found));
    };
    // The second ends first, and is noted last.
    for (begun, ended) in [(2, 9), (3, 5), (2, 9), (3, 9)] {
        read(begun, ended);
    }
    traces.end(&trail, DONE);
    let hops: Vec<_> = trail
        .noted()
        .hops
        .iter()
        .map(|hop| {
            let Detail::Read(looked) = &hop.detail else {
                panic!("{hop:?}");
            };
            (hop.queue().as_millis(), hop.work().as_millis(), looked.filters)
        })
        .collect();
    assert_eq!(hops, [(1, 7, 2), (2, 2, 1), (2, 6, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_counts() {
    let (sender, _queue) = channel(2);
    let slow = Duration::ZERO;
    let traces = Traces::new(Sampling { ratio: 1.0, slow }, Some(sender));
    for _ in 0..5 {
        request(&traces, None, 0, DONE).await;
    }
    assert_eq!(traces.counts.dropped.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_of_the_last_minutes_are_known_and_old_ones_make_room() {
    let slow = Duration::from_secs(1);
    let traces = Traces::new(Sampling { ratio: 0.0, slow }, None);
    for took_ms in 0..100 {
        request(&traces, None, took_ms, DONE).await;
    }
    let took = || {
        let slowest = traces.slowest(0).into_iter();
        slowest.map(|(_, slow)| slow.took.as_millis()).collect::<Vec<_>>()
    };
    let expected: Vec<u128> = (0..100).rev().take(SLOWEST).collect();
    assert_eq!(took(), expected);
    advance(slowest::WINDOW).await;
    assert_eq!(took(), [0; 0]);
    request(&traces, None, 3, DONE).await;
    assert_eq!(took(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_arrived_at_the_same_time_however_often_it_is_looked_at() {
    let (traces, _queue) = traces(0.0, 1000);
    request(&traces, None, 250, DONE).await;
    let started = |now_ms| traces.slowest(now_ms).iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(started(10_000), [9750]);
    // The wall clock was a little ahead, or was set.
    advance(Duration::from_millis(500)).await;
    assert_eq!(started(10_499), [9750]);
    assert_eq!(started(99_000), [9750]);
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_and_a_threshold_there_are_no_trails() {
    let sampling = Sampling {
        ratio: 1.0,
        slow: Duration::ZERO,
    };
    assert!(Traces::new(sampling, None).begin(&WRITE, None, None).is_none());
}

#[tokio::test(start_paused = true)]
async fn queue_and_work_are_apart_and_hops_follow_each_other_without_a_gap() {
    let (traces, _queue) = traces(0.0, 1000);
    let trail = traces.begin(&WRITE, None, None).unwrap();
    let after = async |ms| {
        advance(Duration::from_millis(ms)).await;
        Instant::now()
    };
    along(Arc::clone(&trail), async {
        after(1).await;
        received(Some("acme"));
        let queued = Instant::now();
        let begun = after(2).await;
        after(3).await;
        trail.hop("wal", (queued, begun), Detail::None);
        let begun = after(4).await;
        let ended = after(5).await;
        trail.hop_on("log", (begun, ended), Detail::None);
        after(6).await;
        resumed();
        after(7).await;
    })
    .await;
    traces.end(&trail, DONE);
    let noted = trail.noted().with_answer();
    assert_eq!(noted.tenant, "acme");
    let hops: Vec<_> = noted
        .hops
        .iter()
        .map(|hop| (hop.name, hop.queue().as_millis(), hop.work().as_millis()))
        .collect();
    assert_eq!(
        hops,
        [("receive", 0, 1), ("wal", 2, 3), ("log", 4, 5), ("answer", 6, 7)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_trail_has_a_bound() {
    let (traces, _queue) = traces(0.0, 1000);
    let trail = traces.begin(&WRITE, None, None).unwrap();
    for _ in 0..100 {
        trail.hop("cache", (trail.started, trail.started), Detail::None);
    }
    assert_eq!((trail.noted().hops.len(), trail.noted().left_out), (MOST_HOPS, 36));
}

/// A call of another node.
fn calling(traces: &Arc<Traces>) -> Calling {
    let to = NodeAddress::parse("node:1").unwrap();
    Calling::begin(traces, "Write", &to)
}

/// The `traceparent` that goes along with it.
fn parent_in(calling: &Calling) -> Option<TraceContext> {
    let (text, _state) = calling.headers()?;
    Some(TraceContext::parse(&text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_call_of_another_node_is_part_of_its_requests_trace_and_told_if_that_is_sampled() {
    let parent = |sampled| TraceContext {
        sampled,
        ..TraceContext::root()
    };
    let (traces, mut queue) = traces(0.0, 1000);
    let trail = traces.begin(&WRITE, Some(parent(true)), Some("vendor=opaque")).unwrap();
    along(Arc::clone(&trail), async {
        // What another task is given to do belongs to the request, too.
        let theirs = Arc::clone(&traces);
        let call = tokio::spawn(taken_along(async move { calling(&theirs) }));
        assert_told(call.await.unwrap(), &trail, &mut queue, DONE);
        assert_told(calling(&traces), &trail, &mut queue, FAILED);
        drop(calling(&traces));
    })
    .await;
    let Some(Kept::Call(given_up)) = queue.try_recv().ok() else {
        panic!("a call that was given up is told");
    };
    assert_eq!(given_up.outcome.status, "CANCELLED");

    // The request itself may be kept, if it fails: what goes along is its own span.
    let trail = traces.begin(&WRITE, Some(parent(false)), None).unwrap();
    let sent = along(Arc::clone(&trail), async { parent_in(&calling(&traces)) }).await;
    assert_eq!((sent, kept(&mut queue)), (Some(trail.context), 0));

    let work = traces.root();
    let sent = as_work(work, async { parent_in(&calling(&traces)) }).await;
    assert_eq!(sent, Some(work));
    assert_eq!(parent_in(&calling(&traces)), None, "it is made for nobody");
}

/// Asserts that the call goes on below the trail, and that it is told so.
fn assert_told(call: Calling, trail: &Trail, queue: &mut Receiver<Kept>, outcome: Outcome) {
    let sent = parent_in(&call).unwrap();
    assert_eq!(call.headers().unwrap().1, Some("vendor=opaque"));
    assert!(sent.sampled && sent.trace == trail.context.trace && sent.span != trail.context.span);
    call.end(outcome);
    let Some(Kept::Call(told)) = queue.try_recv().ok() else {
        panic!("a call is told at its end");
    };
    assert_eq!((told.context, told.outcome), (sent, outcome));
    assert_eq!(told.caller.context, trail.context);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_sends_no_traces_passes_on_what_came() {
    let slow = Duration::from_secs(1);
    let traces = Traces::new(Sampling { ratio: 1.0, slow }, None);
    for sampled in [false, true] {
        let came = TraceContext {
            sampled,
            ..TraceContext::root()
        };
        for parent in [Some(came), None] {
            let trail = traces.begin(&WRITE, parent, None).unwrap();
            let sent = along(trail, async { parent_in(&calling(&traces)) }).await;
            assert_eq!(sent, parent);
        }
    }
}
