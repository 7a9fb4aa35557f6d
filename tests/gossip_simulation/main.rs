//! The gossip of up to a thousand nodes in simulated time: packets that get lost, parts that cannot hear each other, processes
//! that stop for a while, clocks that jump, packets that somebody sends again. It is the same core that a node runs; keys and
//! sockets are in `tests/gossip.rs`.
//!
//! `PAIRDB_TEST_GOSSIP_SEED=N` runs them all with other chances. `PAIRDB_TEST_GOSSIP_HOURS=24` makes the run without deaths as
//! long as that, has a thousand nodes find each other by themselves, and parts and stops some of a thousand instead of some of
//! three hundred; `--nocapture` shows the figures.

mod world;

use pairdb_node::actors::gossip::identity::Identity;
use pairdb_node::actors::gossip::pace::Pace;
use pairdb_node::actors::gossip::seen::Life;
use pairdb_node::actors::gossip::wire::Refused;
use pairdb_node::actors::health::Status;
use rand::Rng;
use std::time::Duration;
use world::*;

/// The part of the network that a node is in.
type Cut = fn(usize) -> usize;

/// Hours of the long form, if it is asked for.
fn long_form() -> Option<f64> {
    let hours = std::env::var("PAIRDB_TEST_GOSSIP_HOURS").ok()?;
    Some(hours.parse().expect("PAIRDB_TEST_GOSSIP_HOURS is a number"))
}

/// The 99th of a hundred.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

fn whole(count: usize, pace: Pace, loss: f64, seed: u64) -> World {
    let mut world = World::new(count, pace, loss, seed);
    let took = world.until_whole(600 * S);
    println!("{count} nodes, {:.0} % loss: all know all after {took:?}", loss * 100.0);
    // Until the news of the beginning are old.
    world.run(30 * S);
    world
}

/// How long changes of health take until everybody knows: p99, and the longest.
fn spreading(world: &mut World, changes: usize) -> (Duration, Duration) {
    let mut times = Vec::new();
    for change in 0..changes {
        let n = world.chance.random_range(0..world.members.len());
        let status = match world.members[n].report.status {
            Status::Healthy => Status::Degraded,
            _ => Status::Healthy,
        };
        times.push(world.spread(n, status));
        let pause = MS * world.chance.random_range(300..1000 + 10 * change as u32);
        world.run(pause);
    }
    (p99(&mut times), times[times.len() - 1])
}

#[test]
fn a_change_of_health_is_known_to_100_nodes_within_5_s() {
    for loss in [0.0, 0.1] {
        let mut world = whole(100, EACH_SECOND, loss, 1);
        let (p99, longest) = spreading(&mut world, 100);
        println!(
            "gossip each second, {:.0} % loss: p99 {p99:?}, longest {longest:?}",
            loss * 100.0
        );
        assert!(p99 <= 5 * S, "{p99:?}");
        assert_eq!(world.deaths, []);
    }
}

#[test]
fn a_change_of_health_is_known_to_100_nodes_within_30_s_at_the_intervals_that_ship() {
    let mut world = whole(100, SHIPPED, 0.1, 2);
    let (p99, longest) = spreading(&mut world, 100);
    println!("as shipped, 10 % loss: p99 {p99:?}, longest {longest:?}");
    assert!(p99 <= 2 * S, "the README says so: {p99:?}");
    assert!(longest < 30 * S, "{longest:?}");
}

/// Without being told, who is suspected would have to hear of it from others, and does not always in time.
#[test]
fn nobody_dies_of_lost_packets() {
    let hours = long_form().unwrap_or(0.5);
    let mut world = whole(100, SHIPPED, 0.1, 3);
    let (until, before) = (world.now + S.mul_f64(3600.0 * hours), world.packets);
    while world.now < until {
        world.run(60 * S);
        assert_eq!(world.deaths, [], "after {:?}", world.now);
    }
    assert!(world.suspicions > 0, "nobody was even suspected");
    assert_eq!(world.renewals, 0);
    println!(
        "{hours} h, 100 nodes, 10 % loss: {} packets, {} suspicions told, 0 deaths",
        world.packets - before,
        world.suspicions
    );
    world.until_whole(10 * S);
}

#[test]
fn a_node_that_dies_is_known_as_dead_everywhere_and_one_that_leaves_as_gone() {
    let mut world = whole(100, SHIPPED, 0.1, 4);
    world.kill(17);
    let took = world.until_whole(60 * S);
    println!("100 nodes, 10 % loss: a death is known everywhere after {took:?}");
    assert!(
        world
            .running()
            .iter()
            .all(|n| world.sees(*n, 17).unwrap().0 == Life::Down)
    );
    world.leave(18);
    let took = world.until_whole(15 * S);
    println!("100 nodes, 10 % loss: that one left is known everywhere after {took:?}");
    let as_left = |n: &usize| world.sees(*n, 18).unwrap().0 == Life::Left;
    let left = world.running().iter().filter(|n| as_left(n)).count();
    assert!(left > 90, "{left} of 98 know that it left in order");
    // It comes back as another than it was, and has to hear how all are.
    world.members[17].report.status = Status::Degraded;
    world.start(17);
    let took = world.until_whole(120 * S) + world.until_all_known(120 * S);
    println!("100 nodes, 10 % loss: one that is back knows how all are, and all how it is, after {took:?}");
}

#[test]
fn every_partition_heals_and_kills_nobody_of_its_own_part() {
    let mut world = whole(100, SHIPPED, 0.1, 5);
    let cuts: [(&str, Cut); 4] = [
        ("halves", |n| 1 + n % 2),
        ("one alone", |n| usize::from(n == 7)),
        ("without the seeds", |n| usize::from(n < 3)),
        ("five parts", |n| 1 + n % 5),
    ];
    for (name, cut) in cuts {
        for length in [4, 60, 600] {
            world.deaths.clear();
            world.split(cut);
            // Each part has something to tell that the other has not heard.
            for n in [7, 8] {
                let status = &mut world.members[n].report.status;
                *status = match *status {
                    Status::Healthy => Status::Degraded,
                    _ => Status::Healthy,
                };
            }
            world.run(length * S);
            let wrong = world.deaths.iter().find(|(_, n, of)| {
                let of: usize = of.trim_start_matches("node-").parse().unwrap();
                cut(*n) == cut(of)
            });
            assert_eq!(wrong, None, "{name}: a death in one part");
            assert_eq!(world.deaths.is_empty(), length == 4, "{name}, {length} s");
            world.split(|_| 0);
            let took = world.until_whole(120 * S);
            let then = world.until_all_known(120 * S);
            world.run(20 * S);
            assert!(world.is_whole(), "{name}, {length} s: it does not last");
            println!(
                "{name} for {length} s: whole again after {took:?}, and all that was said is known {then:?} later"
            );
        }
    }
}

/// Longer than the dead are remembered: only the seeds lead back.
#[test]
fn parts_that_have_forgotten_each_other_meet_at_a_seed() {
    let slow = Pace {
        gossip_interval: 60 * S,
        probe_interval: 60 * S,
        probe_timeout: 30 * S,
    };
    let mut world = World::new(8, slow, 0.1, 6);
    world.until_whole(4 * 3600 * S);
    world.split(|n| n / 4);
    world.run(26 * 3600 * S);
    assert!(world.sees(0, 7).is_none() && world.sees(7, 0).is_none(), "forgotten");
    world.split(|_| 0);
    let took = world.until_whole(2 * 3600 * S);
    println!("after 26 h apart, probing each minute: whole again after {took:?}");
}

/// It suspected others when it was stopped, and what they answered it has not read: by the clock they would be dead.
#[test]
fn a_process_that_was_stopped_is_back_at_once_and_takes_nobody_for_dead() {
    const STOPPED: std::ops::Range<usize> = 5..15;
    let mut world = whole(100, SHIPPED, 0.1, 7);
    for seconds in [3, 30, 300] {
        world.split(|n| usize::from(STOPPED.contains(&n)));
        world.run(5 * S);
        let suspects = |n: usize| (15..100).any(|other| world.sees(n, other).unwrap().0 == Life::Suspect);
        assert!(STOPPED.into_iter().all(suspects), "{seconds} s");
        for n in STOPPED {
            world.pause(n, seconds * S);
        }
        world.split(|_| 0);
        world.run(seconds * S);
        world.deaths.clear();
        // Longer than from a suspicion to a verdict.
        world.run(15 * S);
        let of_others = |(_, _, of): &&(Duration, usize, String)| !STOPPED.into_iter().any(|n| name(n) == *of);
        assert_eq!(world.deaths.iter().find(of_others), None, "{seconds} s");
        let took = world.until_whole(120 * S);
        world.until_all_known(120 * S);
        world.run(30 * S);
        assert!(world.is_whole(), "{seconds} s: it does not last");
        println!("ten of 100 stopped for {seconds} s: whole after {took:?} more");
    }
}

/// A node that runs asks its wall clock for nothing that counts here, so a jump shows when it starts again.
#[test]
fn clocks_that_jump_lock_nobody_out() {
    let mut world = whole(20, SHIPPED, 0.1, 8);
    for (n, jump_ms) in [(4, -3_600_000), (5, 3_600_000), (1, -86_400_000)] {
        world.members[n].clock_ms = jump_ms;
        world.kill(n);
        world.run(if n == 4 { S } else { 60 * S });
        world.start(n);
        let took = world.until_whole(60 * S);
        println!("restarted with a clock that jumped by {jump_ms} ms: whole after {took:?}");
    }
    // Forward, and back where it was.
    world.members[5].clock_ms = 0;
    world.kill(5);
    world.start(5);
    world.until_whole(60 * S);
    let took = world.spread(5, Status::Degraded);
    assert!(took < 30 * S, "what it says counts again: {took:?}");
}

#[test]
fn a_node_that_comes_back_elsewhere_is_the_same_node() {
    let mut world = whole(20, SHIPPED, 0.1, 9);
    for pause in [S, 120 * S] {
        world.kill(6);
        world.run(pause);
        world.move_away(6);
        world.start(6);
        let took = world.until("all know where it is", 60 * S, |world| world.is_found(6));
        println!("moved within {pause:?}: known everywhere after {took:?}");
        assert!(world.is_whole());
    }
}

#[test]
fn a_node_that_moves_while_it_runs_is_found_where_it_is_and_nobody_loses_it() {
    let mut world = whole(20, SHIPPED, 0.1, 17);
    let lives = |world: &World| world.members[6].core.as_ref().unwrap().own().incarnation;
    let before = lives(&world);
    world.move_running(6);
    let took = world.until("all know where it is", 30 * S, |world| world.is_found(6));
    println!("moved while it ran: known everywhere after {took:?}");
    world.run(60 * S);
    assert!(world.is_found(6) && world.is_whole());
    assert_eq!((world.deaths.len(), lives(&world)), (0, before + 1));
    let took = world.spread(6, Status::Degraded);
    assert!(took < 30 * S, "what it says counts: {took:?}");
    // Where it is already, it does not move.
    let (now, at) = (world.now, world.members[6].address);
    world.members[6].core.as_mut().unwrap().move_to(now, at);
    assert_eq!(lives(&world), before + 1);
}

#[test]
fn nodes_whose_seeds_come_later_find_each_other_without_help() {
    let mut world = World::new(12, SHIPPED, 0.1, 10);
    for seed in 0..3 {
        world.kill(seed);
    }
    world.run(90 * S);
    assert!(
        (3..12).all(|n| world.members[n].core.as_ref().unwrap().is_alone()),
        "nobody could tell them"
    );
    world.start(1);
    let took = world.until_whole(30 * S);
    println!("the first seed came late: all know all after {took:?}");
}

/// Whoever hears the network may send what he heard again, to whomever he likes.
#[test]
fn replays_raise_nobody_from_the_dead_and_change_nothing() {
    let mut world = whole(20, EACH_SECOND, 0.1, 11);
    world.spread(3, Status::Degraded);
    world.run(20 * S);
    world.kill(9);
    world.run(60 * S);
    assert!(world.is_whole());
    world.spread(3, Status::Healthy);
    world.run(5 * S);
    world.deaths.clear();
    world.refused.clear();
    let recorded = world.recorded.clone();
    for _ in 0..600 {
        for _ in 0..50 {
            let (to, packet) = &recorded[world.chance.random_range(0..recorded.len())];
            let elsewhere = world.chance.random_range(0..20);
            let to = if world.chance.random_bool(0.5) { *to } else { elsewhere };
            world.deliver(to, packet);
        }
        world.run(100 * MS);
        if world.now.as_millis() % 1000 < 100 {
            assert!(world.is_whole(), "at {:?}", world.now);
        }
    }
    assert_eq!((&world.deaths[..], world.renewals), (&[][..], 0));
    assert!(
        (0..20)
            .filter(|n| *n != 9)
            .all(|n| world.sees(n, 3).unwrap().1 == Some(Status::Healthy))
    );
    let replayed = world.refused.iter().filter(|why| **why == Refused::Replayed).count();
    assert!(replayed > 10_000, "{replayed} of 30000 were known as replays");
}

/// It knows nobody, and so cannot know that it has heard that before.
#[test]
fn replays_raise_nobody_at_a_node_that_has_just_begun() {
    let mut world = World::new(10, EACH_SECOND, 0.0, 14);
    world.until_whole(60 * S);
    let before = world.recorded_news(4);
    world.spread(3, Status::Degraded);
    world.run(5 * S);
    // All that was said, in its order: what was said later would hide what was said before.
    let recorded = world.recorded.clone();
    assert!(recorded.len() < RECORDED && world.recorded_news(4) > before);
    world.kill(9);
    world.kill(4);
    world.spread(3, Status::Healthy);
    world.run(60 * S);
    world.split(|n| usize::from(n == 4));
    world.start(4);
    let asked = world.packets;
    world.refused.clear();
    for _ in 0..5 {
        for (_, packet) in &recorded {
            world.deliver(4, packet);
        }
        world.run(S);
        let core = world.members[4].core.as_ref().unwrap();
        assert!(core.is_alone() && core.members().len() == 1, "{:?}", core.members());
    }
    assert!(world.packets > asked, "those who announced themselves are asked");
    assert!(
        world.refused.contains(&Refused::Misdirected),
        "news for the life before"
    );
    // Nor is it shown what they said when they lived, or were otherwise, once it hears of those who live.
    world.split(|_| 0);
    let as_it_was = |world: &World| world.sees(4, 3).and_then(|(_, status)| status) == Some(Status::Degraded);
    let begun = world.now;
    while !world.is_whole() || !world.knows_all() {
        world.run(10 * MS);
        assert!(!as_it_was(&world), "at {:?}", world.now);
        assert!(world.now - begun < 60 * S, "node 4 does not get to know all");
    }
}

#[test]
fn whoever_sends_packets_of_an_earlier_life_again_is_not_answered_each_time() {
    let mut world = whole(10, EACH_SECOND, 0.0, 16);
    let earlier = world.recorded_of(5, 2);
    assert!(earlier.len() > 5, "{}", earlier.len());
    world.kill(5);
    world.run(S);
    world.start(5);
    world.run(60 * S);
    assert!(world.is_whole());
    world.refused.clear();
    let before = world.packets;
    for packet in earlier.iter().cycle().take(1000) {
        world.deliver(2, packet);
    }
    assert_eq!(world.refused, [Refused::Superseded; 1000]);
    assert_eq!(world.packets - before, 1, "one answer in a probe interval");
    world.run(2 * S);
    let before = world.packets;
    world.deliver(2, &earlier[0]);
    assert_eq!(world.packets - before, 1, "and one in the next");
}

/// The dead are called for a while, in case that it was the network; those who left are not.
#[test]
fn a_cluster_that_got_smaller_does_not_call_at_those_who_are_gone() {
    let a_minute = |world: &mut World| {
        let before = world.packets;
        world.run(60 * S);
        world.packets - before
    };
    let mut left = whole(20, EACH_SECOND, 0.0, 18);
    let mut killed = whole(20, EACH_SECOND, 0.0, 18);
    for n in 8..20 {
        left.leave(n);
        killed.kill(n);
    }
    left.run(60 * S);
    killed.run(60 * S);
    let (of_left, at_first) = (a_minute(&mut left), a_minute(&mut killed));
    killed.run(300 * S);
    let later = a_minute(&mut killed);
    println!("eight of 20 stay, packets a minute: {of_left}; the others were killed: {at_first}, later {later}");
    assert!(of_left * 10 < at_first * 8, "{of_left} of {at_first}");
    assert!(later * 10 < at_first * 8, "{later} of {at_first}");
}

#[test]
fn a_node_shows_itself_as_it_is_now_and_numbers_alone_are_not_news() {
    let mut world = whole(10, SHIPPED, 0.0, 19);
    world.members[3].report.cpu = 0.55;
    world.run(2 * S);
    let cpu = |world: &World, n: usize| {
        let members = world.members[n].core.as_ref().unwrap().members();
        let of = members.iter().find(|seen| seen.identity.node_id == name(3)).unwrap();
        of.heard.as_ref().unwrap().record.report.cpu
    };
    assert_eq!(cpu(&world, 3), 0.55);
    assert!((0..10).any(|n| cpu(&world, n) != 0.55), "all know already");
    world.until("all know it in the end", 60 * S, |world| {
        (0..10).all(|n| cpu(world, n) == 0.55)
    });
}

/// How old the numbers are that nodes show of each other: p99, and the oldest, over so many seconds.
fn ages_of_numbers(world: &mut World, settling: u64, seconds: u64) -> (Duration, Duration) {
    let mut ages = Vec::new();
    for second in 0..settling + seconds {
        for member in &mut world.members {
            // A number that says when it was measured.
            member.report.cpu = second as f32 / 1000.0;
        }
        world.run(S);
        if second < settling {
            continue;
        }
        for member in &world.members {
            let members = member.core.as_ref().unwrap().members();
            let others = members.iter().skip(1).map(|seen| seen.heard.as_ref().unwrap());
            ages.extend(others.map(|heard| S * (second - (heard.record.report.cpu * 1000.0).round() as u64) as u32));
        }
    }
    (p99(&mut ages), ages[ages.len() - 1])
}

#[test]
fn numbers_of_100_nodes_are_hardly_ever_older_than_20_s_at_the_intervals_that_ship() {
    let mut world = whole(100, SHIPPED, 0.1, 20);
    let (p99, oldest) = ages_of_numbers(&mut world, 100, 100);
    println!(
        "as shipped, 100 nodes, 10 % loss: numbers are at most {p99:?} old, 99 times of 100, and {oldest:?} at most"
    );
    assert!(p99 <= 20 * S, "the README says so: {p99:?}");
    assert!(oldest < 40 * S, "the same: {oldest:?}");
}

#[test]
fn damaged_packets_of_a_member_end_nobody() {
    let mut world = whole(10, EACH_SECOND, 0.0, 12);
    let recorded = world.recorded.clone();
    world.refused.clear();
    for round in 0..20_000 {
        let (to, mut packet) = recorded[world.chance.random_range(0..recorded.len())].clone();
        // A number that was not there yet, so that what follows it is read.
        packet[1..9].copy_from_slice(&(1_000_000 + round as u64).to_le_bytes());
        for _ in 0..world.chance.random_range(1..4) {
            let at = world.chance.random_range(9..packet.len());
            packet[at] = world.chance.random();
        }
        packet.truncate(world.chance.random_range(1..=packet.len()));
        world.deliver(to, &packet);
    }
    let undecodable = world.refused.iter().filter(|why| **why == Refused::Undecodable).count();
    assert!(undecodable > 1000, "{undecodable}");
    // Whatever they were made believe, nobody has ended, and those who are there see each other again.
    world.refused.clear();
    let there = |world: &World| {
        (0..10).all(|n| (0..10).all(|other| world.sees(n, other).is_some_and(|(life, _)| life.is_there())))
    };
    world.until("all see all again", 600 * S, there);
}

#[test]
fn two_nodes_of_one_id_are_found_out() {
    let mut world = whole(6, EACH_SECOND, 0.0, 13);
    assert_eq!(world.rivals, 0);
    world.kill(5);
    world.run(20 * S);
    // The sixth process says that it is the fifth.
    world.members[5].called = 4;
    world.start(5);
    world.run(30 * S);
    assert!(world.rivals > 0, "one of the two says that there is another");
    world.kill(5);
    world.until("the one that stays is the one that is known", 60 * S, |world| {
        let at = world.members[4].address;
        (0..4).all(|n| {
            let members = world.members[n].core.as_ref().unwrap().members();
            members
                .iter()
                .any(|seen| seen.identity.address == at && seen.life == Life::Alive)
        })
    });
}

#[test]
fn a_thousand_nodes_learn_of_changes_and_deaths_and_find_each_other() {
    let mut world = if long_form().is_some() {
        let mut world = World::new(1000, SHIPPED, 0.01, 15);
        let took = world.until_whole(300 * S);
        println!("1000 nodes, 1 % loss: all know all after {took:?}");
        world
    } else {
        World::acquainted(1000, SHIPPED, 0.1, 15)
    };
    let (_, longest) = spreading(&mut world, 3);
    println!("1000 nodes: a change is known everywhere after at most {longest:?}");
    assert!(longest < 30 * S, "{longest:?}");
    for n in 700..710 {
        world.kill(n);
    }
    let took = world.until_whole(120 * S);
    println!("1000 nodes: ten deaths at once are known everywhere after {took:?}");
    let of_killed = |of: &str| (700..710).any(|n| name(n) == of);
    assert!(
        world.deaths.iter().all(|(_, _, of)| of_killed(of)),
        "somebody else was taken for dead"
    );
    let took = back_with_other_clocks(&mut world, 700..710);
    println!("1000 nodes: ten are back with clocks that jumped by a day: known everywhere after {took:?}");
    assert!(took <= 15 * S, "the README says so");
    // They began with nothing but their seeds, and the last few of a thousand are found by chance.
    if long_form().is_some() {
        let took = world.until_whole(420 * S);
        println!("1000 nodes: the ten know all others again {took:?} later");
    }
}

/// Starts nodes that do not run, with clocks that have jumped by a day, back or forth. Returns how long it took until all others
/// see them there, in the lives that they have now.
fn back_with_other_clocks(world: &mut World, nodes: std::ops::Range<usize>) -> Duration {
    for n in nodes.clone() {
        world.members[n].clock_ms = if n % 2 == 0 { -86_400_000 } else { 86_400_000 };
        world.start(n);
    }
    world.until("the others see their present lives", 120 * S, |world| {
        let own = |n: usize| world.members[n].core.as_ref().unwrap().own().clone();
        let lives: Vec<_> = nodes.clone().map(own).collect();
        let others = world.running().into_iter().filter(|n| !nodes.contains(n));
        others.into_iter().all(|n| {
            let members = world.members[n].core.as_ref().unwrap().members();
            let there = members.iter().filter(|seen| seen.life.is_there());
            let known = there.filter(|seen| {
                let identity = &seen.identity;
                let is = |own: &Identity| own.node_id == identity.node_id && own.incarnation == identity.incarnation;
                lives.iter().any(is)
            });
            known.count() == lives.len()
        })
    })
}

#[test]
fn very_many_nodes_heal_after_a_partition_and_bear_a_pause() {
    let nodes = if long_form().is_some() { 1000 } else { 300 };
    let mut world = World::acquainted(nodes, SHIPPED, 0.1, 16);
    let half = |n: usize| 1 + n % 2;
    world.split(half);
    world.run(60 * S);
    let within = |n: usize, of: &str| half(n) == half(of.trim_start_matches("node-").parse().unwrap());
    let wrong = world.deaths.iter().find(|(_, n, of)| within(*n, of));
    assert_eq!(wrong, None, "a death in one part");
    assert!(!world.deaths.is_empty(), "the parts have lost each other");
    world.split(|_| 0);
    let took = world.until_whole(300 * S);
    println!("{nodes} nodes, halves for 60 s: whole again after {took:?}");
    for n in 100..110 {
        world.pause(n, 30 * S);
    }
    world.run(30 * S);
    world.deaths.clear();
    let took = world.until_whole(300 * S);
    println!("{nodes} nodes, ten stopped for 30 s: whole again after {took:?}");
    let of_stopped = |of: &str| (100..110).any(|n| name(n) == of);
    let wrong = world.deaths.iter().find(|(_, _, of)| !of_stopped(of));
    assert_eq!(wrong, None, "those who were stopped take nobody for dead");
    // At once, so that the others still take them for alive, in their lives before.
    for n in 50..60 {
        world.kill(n);
    }
    let took = back_with_other_clocks(&mut world, 50..60);
    println!("{nodes} nodes, ten restarted with clocks that jumped by a day: known everywhere after {took:?}");
    let took = world.until_whole(420 * S);
    println!("{nodes} nodes: the ten know all others again {took:?} later");
}
