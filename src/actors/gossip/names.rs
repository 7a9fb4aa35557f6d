//! Where the seeds are, and this node itself: names that are looked up again and again, since what a name means changes.
//!
//! Owns: whom to ask, and what was found last. Does not own: when to look, or who is there.

use crate::actors::threads::Threads;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use tokio::task::JoinHandle;

/// Addresses of a name that count: a name may have any number.
const MOST: usize = 16;

/// What came of looking a name up.
pub type Looked = io::Result<Vec<SocketAddr>>;

/// What says where a name with a port is. It may take its time.
#[derive(Clone)]
pub struct NameService(Arc<dyn Fn(&str) -> Looked + Send + Sync>);

impl NameService {
    /// That of the system.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|name| Ok(name.to_socket_addrs()?.collect()))
    }

    /// One that answers so.
    #[must_use]
    pub fn new(find: impl Fn(&str) -> Looked + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    fn find(&self, name: &str) -> Looked {
        (self.0)(name)
    }
}

impl fmt::Debug for NameService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameService")
    }
}

/// A name with a port.
#[derive(Debug, Clone, Default)]
pub(super) struct Name {
    name: String,
    /// Held by the thread that looks. What the system does for it cannot be ended; while it lasts, nobody else begins, so that
    /// a name service that hangs has one thread for each name, and no more.
    looking: Weak<()>,
    is_missing: bool,
    found: Vec<SocketAddr>,
}

/// All that a node looks up.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// Its own, when others are told one.
    pub(super) own: Option<Name>,
    /// Its seeds.
    pub(super) seeds: Vec<Name>,
}

impl Names {
    pub(super) fn new(own: Option<String>, seeds: Vec<String>) -> Self {
        Self {
            own: own.map(Name::new),
            seeds: seeds.into_iter().map(Name::new).collect(),
        }
    }

    /// Where seeds may be.
    pub(super) fn found(&self) -> Vec<SocketAddr> {
        let mut found: Vec<_> = self.seeds.iter().flat_map(|seed| seed.found.iter().copied()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether there is a seed, found or not, that is not at `own`.
    pub(super) fn lead_beyond(&self, own: SocketAddr) -> bool {
        let leads = |seed: &Name| seed.found.is_empty() || seed.found.iter().any(|found| *found != own);
        self.seeds.iter().any(leads)
    }

    /// Whether a seed is on another machine.
    pub(super) fn lead_elsewhere(&self) -> bool {
        self.found().iter().any(|seed| !seed.ip().is_loopback())
    }
}

impl Name {
    fn new(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// The addresses that were found last.
    pub(super) fn found(&self) -> &[SocketAddr] {
        &self.found
    }

    /// Begins to look, unless somebody does. What comes of it is to be handed to [`Name::saw`].
    pub(super) fn look(&mut self, threads: &Threads, service: &NameService) -> Option<JoinHandle<Looked>> {
        if self.looking.strong_count() > 0 {
            return None;
        }
        let looking = Arc::new(());
        self.looking = Arc::downgrade(&looking);
        let (name, service) = (self.name.clone(), service.clone());
        Some(threads.run(move || {
            let found = service.find(&name);
            drop(looking);
            found
        }))
    }

    /// Takes what was found. A name that is not found now keeps what it had: the name service may be away for a while.
    /// `is_v4`: addresses of the other kind cannot be sent to. Those that only this machine reaches count when there are no
    /// others: systems are installed that have their own name at one of these, too.
    ///
    /// # Errors
    /// Why it is not found.
    pub(super) fn saw(&mut self, found: Looked, is_v4: bool) -> io::Result<()> {
        let mut found = found?;
        found.retain(|address| address.is_ipv4() == is_v4);
        if found.is_empty() {
            let kind = if is_v4 { "IPv4" } else { "IPv6" };
            return Err(io::Error::other(format!("the name has no {kind} address")));
        }
        if found.iter().any(|address| !address.ip().is_loopback()) {
            found.retain(|address| !address.ip().is_loopback());
        }
        // Of those that count: the first of a long answer may all be of the other kind.
        found.truncate(MOST);
        self.found = found;
        Ok(())
    }

    /// Notes whether it is found. Says whether that has changed.
    pub(super) fn is_news(&mut self, is_missing: bool) -> bool {
        std::mem::replace(&mut self.is_missing, is_missing) != is_missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::mpsc;

    fn at(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_found_replaces_what_was_and_what_is_not_found_does_not() {
        let mut name = Name::new("n:1".to_owned());
        for (found, expected) in [
            (&["127.0.1.1:1", "[::1]:1", "10.0.0.2:1"][..], &["10.0.0.2:1"][..]),
            (&["10.0.0.3:1", "10.0.0.4:1"], &["10.0.0.3:1", "10.0.0.4:1"]),
            (&["127.0.1.1:1"], &["127.0.1.1:1"]),
        ] {
            name.saw(Ok(at(found)), true).unwrap();
            assert_eq!(name.found(), at(expected));
        }
        for nothing in [
            Err(io::Error::other("no answer")),
            Ok(at(&["[2001:db8::1]:1"])),
            Ok(Vec::new()),
        ] {
            name.saw(nothing, true).unwrap_err();
            assert_eq!(name.found(), at(&["127.0.1.1:1"]));
        }
        name.saw(Ok(at(&["10.0.0.2:1", "[2001:db8::1]:1"])), false).unwrap();
        assert_eq!(name.found(), at(&["[2001:db8::1]:1"]));
        assert!(name.is_news(true) && !name.is_news(true) && name.is_news(false));
    }

    #[test]
    fn a_long_answer_is_cut_to_addresses_that_can_be_sent_to() {
        let mut name = Name::new("n:1".to_owned());
        let others = (0..40).map(|n| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 1)));
        let ours: Vec<_> = (0..40).map(|n| SocketAddr::from(([10, 0, 0, n], 1))).collect();
        let own = SocketAddr::from(([127, 0, 0, 1], 1));
        let found = others.chain(vec![own; 40]).chain(ours.clone()).collect();
        name.saw(Ok(found), true).unwrap();
        assert_eq!(name.found(), &ours[..MOST]);
    }

    #[tokio::test]
    async fn nobody_begins_to_look_while_the_system_still_does() {
        let (threads, system) = (Threads::system(), NameService::system());
        let mut name = Name::new("127.0.0.1:1".to_owned());
        let ((begun, begins), (go_on, wait)) = (mpsc::channel(), mpsc::channel());
        let wait = Mutex::new(wait);
        let hangs = NameService::new(move |_| {
            begun.send(()).unwrap();
            wait.lock().recv().unwrap();
            Err(io::Error::other("at last"))
        });
        let looking = name.look(&threads, &hangs).unwrap();
        begins.recv().unwrap();
        // That nobody waits for it any more does not end it.
        looking.abort();
        assert!(name.look(&threads, &system).is_none() && name.clone().look(&threads, &system).is_none());
        go_on.send(()).unwrap();
        assert!(looking.await.unwrap().is_err());
        let found = name.look(&threads, &system).unwrap().await.unwrap();
        assert_eq!(found.unwrap(), at(&["127.0.0.1:1"]));
    }

    #[test]
    fn seeds_lead_somewhere_unless_all_are_this_node() {
        let mut names = Names::new(None, vec!["a:1".to_owned(), "b:1".to_owned()]);
        let own = at(&["127.0.0.1:1"])[0];
        assert!(names.lead_beyond(own), "not found yet");
        for seed in &mut names.seeds {
            seed.saw(Ok(vec![own]), true).unwrap();
        }
        assert!(!names.lead_beyond(own) && !names.lead_elsewhere());
        assert_eq!(names.found(), [own]);
        names.seeds[1].saw(Ok(at(&["127.0.0.2:1"])), true).unwrap();
        assert!(names.lead_beyond(own) && !names.lead_elsewhere());
        names.seeds[1].saw(Ok(at(&["10.0.0.2:1"])), true).unwrap();
        assert!(names.lead_elsewhere());
    }
}
