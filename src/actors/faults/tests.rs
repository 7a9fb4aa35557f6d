use super::*;
use crate::storage::time::RealTime;

fn injection(point: &str, fault: Fault) -> Injection {
    Injection {
        actor: SUPERVISOR.to_owned(),
        point: point.to_owned(),
        fault,
        after: 0,
        times: 1,
        one_in: 1,
        seed: 7,
    }
}

fn faults() -> Arc<Faults> {
    Faults::new(Tree::new(Arc::new(RealTime::default())))
}

#[test]
fn one_happens_as_often_as_it_is_to_and_where_it_is_to() {
    let faults = faults();
    assert_eq!(faults.strike(SUPERVISOR, MESSAGE, true), None);
    let wanted = Injection {
        after: 2,
        times: 3,
        ..injection(MESSAGE, Fault::Error)
    };
    assert_eq!(faults.inject(wanted), Ok(1));
    assert_eq!(faults.strike(SUPERVISOR, START, true), None);
    assert_eq!(faults.strike("wal", MESSAGE, true), None);
    let struck: Vec<_> = (0..7)
        .map(|_| faults.strike(SUPERVISOR, MESSAGE, true).is_some())
        .collect();
    assert_eq!(struck, [false, false, true, true, true, false, false]);
    assert!(faults.armed().is_empty());
    assert_eq!(faults.happened().len(), 3);
}

#[test]
fn chance_is_the_same_for_the_same_seed() {
    let struck = |seed| {
        let faults = faults();
        let wanted = Injection {
            times: 0,
            one_in: 4,
            seed,
            ..injection(MESSAGE, Fault::Error)
        };
        faults.inject(wanted).unwrap();
        (0..400)
            .map(|_| faults.strike(SUPERVISOR, MESSAGE, true).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(struck(1), struck(1));
    assert_ne!(struck(1), struck(2));
    let count = struck(1).iter().filter(|struck| **struck).count();
    assert!((60..140).contains(&count), "{count} of 400");
}

#[test]
fn what_cannot_happen_is_refused_and_says_what_can() {
    let faults = faults();
    let refused = |injection| faults.inject(injection).unwrap_err().0;
    let nobody = Injection {
        actor: "nobody".to_owned(),
        ..injection(MESSAGE, Fault::Panic)
    };
    assert!(refused(nobody).contains("supervisor, disk-io"));
    assert!(refused(injection("middle", Fault::Panic)).contains("it has start, message"));
    assert!(refused(injection(MESSAGE, Fault::DiskFull)).contains("cannot happen"));
    assert!(refused(injection(MESSAGE, Fault::Stall(Duration::from_secs(601)))).contains("stall_ms"));
    let never = Injection {
        one_in: 0,
        ..injection(MESSAGE, Fault::Error)
    };
    assert!(refused(never).contains("one_in"));
    for _ in 0..MOST_ARMED {
        faults.inject(injection(MESSAGE, Fault::Error)).unwrap();
    }
    assert!(refused(injection(MESSAGE, Fault::Error)).contains("clear"));
    assert_eq!(faults.clear(Some(3)), 1);
    assert_eq!(faults.clear(None), MOST_ARMED - 1);
    assert_eq!(faults.strike(SUPERVISOR, MESSAGE, true), None);
}

#[test]
fn a_point_does_what_was_injected() {
    let faults = faults();
    let pass = |fault| {
        faults.inject(injection(MESSAGE, fault)).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| faults.pass(SUPERVISOR, MESSAGE)))
    };
    assert_eq!(pass(Fault::Error).unwrap(), Err(Injected(MESSAGE)));
    assert_eq!(pass(Fault::Stall(Duration::from_millis(1))).unwrap(), Ok(Passed::On));
    assert!(pass(Fault::Kill).is_err());
    assert!(pass(Fault::Panic).is_err());
}
