//! The mailbox: whoever sends while its actor is replaced.

use crate::actors::address::ActorRef;
use crate::actors::mailbox::{Bound, Envelope, Mailbox, Undelivered};
use crate::explore;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;
use std::collections::BTreeMap;
use std::sync::Arc;

const SENDERS: usize = 3;
const MESSAGES: usize = 2;
const MOST: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Delivered,
    Full,
    Down,
}

fn consume(
    actor: ActorRef<Envelope<usize>>,
    mailbox: Mailbox<usize>,
    handled: Arc<Mutex<Vec<usize>>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Some(envelope) = actor.next() {
            assert!(mailbox.stats().messages <= MOST + SENDERS);
            handled.lock().unwrap().push(envelope.message);
        }
    })
}

#[test]
fn a_message_is_handled_handed_back_or_lost_with_its_actor_and_its_room_is_free_again() {
    explore(|| {
        let mailbox = Mailbox::new(Bound {
            messages: MOST,
            bytes: 1000,
        });
        assert!(matches!(mailbox.send(99, 10), Err(Undelivered::Down(99))));
        let handled = Arc::new(Mutex::new(Vec::new()));
        let (first, second) = (ActorRef::new(), ActorRef::new());
        mailbox.publish(first.clone());
        let is_replaced = Arc::new(AtomicBool::new(false));
        let consumers = [&first, &second].map(|actor| consume(actor.clone(), mailbox.clone(), Arc::clone(&handled)));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (mailbox, is_replaced) = (mailbox.clone(), Arc::clone(&is_replaced));
                thread::spawn(move || {
                    let mut outcomes = BTreeMap::new();
                    for n in 0..MESSAGES {
                        let id = sender * MESSAGES + n;
                        let was_replaced = is_replaced.load(Ordering::SeqCst);
                        let sent = match mailbox.send(id, 10) {
                            Ok(()) => Sent::Delivered,
                            Err(Undelivered::Full(back)) => {
                                assert_eq!(back, id);
                                Sent::Full
                            }
                            Err(Undelivered::Down(back)) => {
                                assert_eq!(back, id);
                                Sent::Down
                            }
                        };
                        assert!(!(was_replaced && sent == Sent::Down), "its successor was there");
                        let messages = mailbox.stats().messages;
                        assert!(messages <= MOST + SENDERS, "{messages} have room");
                        outcomes.insert(id, sent);
                    }
                    outcomes
                })
            })
            .collect();
        first.kill();
        mailbox.publish(second.clone());
        is_replaced.store(true, Ordering::SeqCst);
        let mut outcomes = BTreeMap::new();
        for sender in senders {
            outcomes.extend(sender.join().unwrap());
        }
        second.close();
        for consumer in consumers {
            consumer.join().unwrap();
        }
        let lost: Vec<usize> = first.take_lost().into_iter().map(|envelope| envelope.message).collect();
        assert!(second.take_lost().is_empty());
        let handled = handled.lock().unwrap();
        for (id, sent) in outcomes {
            let times = handled.iter().chain(&lost).filter(|other| **other == id).count();
            assert_eq!(times, usize::from(sent == Sent::Delivered), "{id}: {sent:?}");
        }
        let stats = mailbox.stats();
        assert_eq!((stats.messages, stats.bytes), (0, 0));
    });
}
