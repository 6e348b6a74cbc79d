//! The ledger, by tables.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use super::*;

fn capacity() -> Amount {
    amounts(&[("cpu", 4000), ("memory", 1000), ("pods", 3)])
}

fn amounts(list: &[(&str, i64)]) -> Amount {
    Amount(
        list.iter()
            .map(|(name, amount)| ((*name).to_owned(), *amount))
            .collect(),
    )
}

fn amount(cpu_millis: i64, memory: i64) -> Amount {
    amounts(&[("cpu", cpu_millis), ("memory", memory)])
}

fn bid(wants: Amount) -> Bid {
    Bid {
        wants,
        class: Qos::Burstable,
        ports: Vec::new(),
        critical: false,
        misplaced: None,
        extended: Amount::default(),
    }
}

fn lack(resource: &str, numbers: &str) -> Result<(), Denial> {
    Err(Denial::Refused(Refusal {
        reason: format!("OutOf{resource}"),
        message: format!("Node didn't have enough resource: {resource}, {numbers}"),
    }))
}

fn ask(cpu_millis: i64, priority: i32, since: i64) -> Ask {
    Ask {
        wants: amount(cpu_millis, 10),
        priority,
        guaranteed: false,
        since: Timestamp::from_second(since).unwrap_or_default(),
    }
}

#[test]
fn what_is_granted() {
    let ledger = Ledger::new(capacity());
    let mailbox = Arc::new(Mailbox::new(Arc::default(), false));
    ledger.hold("a", amount(1000, 10));
    ledger.hold("b", amount(2000, 500));
    let wants = |cpu, memory| {
        let asked = Ask {
            wants: amount(cpu, memory),
            ..ask(0, 0, 0)
        };
        ledger.ask("a", asked, &mailbox)
    };
    assert_eq!(wants(2000, 10), Verdict::Granted);
    assert_eq!(
        wants(3000, 10),
        Verdict::Deferred("Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000".into())
    );
    assert_eq!(
        wants(1000, 600),
        Verdict::Deferred("Node didn't have enough resource: memory, requested: 600, used: 500, capacity: 1000".into())
    );
    assert_eq!(
        wants(8000, 10),
        Verdict::Infeasible("Node didn't have enough capacity: cpu, requested: 8000, capacity: 4000".into())
    );
}

#[test]
fn who_comes_is_admitted_while_there_is_room() {
    let ledger = Ledger::new(capacity());
    let admit = |uid: &str, wants| ledger.admit(uid, bid(wants));
    assert_eq!(admit("a", amount(3000, 10)), Ok(()));
    assert_eq!(
        admit("b", amount(1500, 10)),
        lack("cpu", "requested: 1500, used: 3000, capacity: 4000")
    );
    assert_eq!(
        admit("b", amount(0, 991)),
        lack("memory", "requested: 991, used: 10, capacity: 1000")
    );
    assert_eq!(admit("b", amount(1000, 990)), Ok(()));
    assert_eq!(admit("c", amount(0, 0)), Ok(()), "what wants nothing always fits");
    assert_eq!(
        admit("d", amount(0, 0)),
        lack("pods", "requested: 1, used: 3, capacity: 3")
    );
    ledger.release("a");
    assert_eq!(admit("d", amount(3000, 0)), Ok(()));
}

#[test]
fn every_resource_counts() {
    let machine = amounts(&[("hugepages-2Mi", 4 << 20), ("ephemeral-storage", 1000), ("pods", 9)]);
    let ledger = Ledger::new(machine);
    let admit = |uid: &str, resource: &str, wants: i64| {
        let extended = amounts(&[("example.com/gpu", 2)]);
        let bid = Bid {
            extended,
            ..bid(amounts(&[(resource, wants)]))
        };
        ledger.admit(uid, bid)
    };
    assert_eq!(admit("a", "hugepages-2Mi", 4 << 20), Ok(()));
    for (resource, wants, numbers) in [
        (
            "hugepages-2Mi",
            2 << 20,
            "requested: 2097152, used: 4194304, capacity: 4194304",
        ),
        ("hugepages-1Gi", 1 << 30, "requested: 1073741824, used: 0, capacity: 0"),
        ("ephemeral-storage", 1001, "requested: 1001, used: 0, capacity: 1000"),
        ("example.com/gpu", 3, "requested: 3, used: 0, capacity: 2"),
    ] {
        assert_eq!(admit("b", resource, wants), lack(resource, numbers));
    }
    assert_eq!(admit("b", "example.com/gpu", 2), Ok(()));
    assert_eq!(
        admit("c", "example.com/other", 7),
        Ok(()),
        "the cluster's, not the node's"
    );
}

#[test]
fn a_port_is_one_pods() {
    let ledger = Ledger::new(capacity());
    let bid = |port, critical, wants| Bid {
        ports: vec![HostPort {
            ip: String::new(),
            protocol: "TCP".into(),
            port,
        }],
        critical,
        ..bid(wants)
    };
    let refused = |result: Result<(), Denial>| match result {
        Ok(()) => String::new(),
        Err(Denial::Refused(refusal)) => refusal.reason,
        Err(Denial::Crowded(lacks)) => format!(
            "{:?}",
            lacks
                .iter()
                .map(|lack| (&*lack.resource, lack.missing()))
                .collect::<Vec<_>>()
        ),
    };
    let (little, much) = (amount(1, 1), amount(9000, 1));
    assert_eq!(refused(ledger.admit("a", bid(80, false, little.clone()))), "");
    assert_eq!(
        refused(ledger.admit("a", bid(80, false, little.clone()))),
        "",
        "its own"
    );
    assert_eq!(
        ledger.admit("b", bid(80, false, little.clone())),
        Err(Denial::Refused(Refusal {
            reason: "NodePorts".into(),
            message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into(),
        }))
    );
    assert_eq!(refused(ledger.admit("b", bid(80, true, much.clone()))), "NodePorts");
    assert_eq!(refused(ledger.admit("b", bid(80, false, much.clone()))), "OutOfcpu");
    assert_eq!(
        refused(ledger.admit("b", bid(81, true, much.clone()))),
        "[(\"cpu\", 5001)]",
        "it is critical, and others can go"
    );
    ledger.release("a");
    assert_eq!(refused(ledger.admit("c", bid(80, true, little.clone()))), "");
    let bid = Bid {
        misplaced: Some(Refusal::predicate("NodeAffinity", "x")),
        ..bid(80, true, much)
    };
    assert_eq!(refused(ledger.admit("d", bid)), "NodeAffinity");
}

#[test]
fn what_burstable_pods_hold_is_summed() {
    let ledger = Ledger::new(capacity());
    let burstable = ledger.burstable();
    let come = |uid: &str, class, cpu| {
        let bid = Bid {
            class,
            ..bid(amount(cpu, 0))
        };
        assert_eq!(ledger.admit(uid, bid), Ok(()));
    };
    come("a", Qos::Burstable, 100);
    come("b", Qos::Guaranteed, 500);
    come("c", Qos::Burstable, 250);
    assert_eq!(*burstable.borrow(), 350);
    ledger.hold("a", amount(50, 0));
    assert_eq!(*burstable.borrow(), 300);
    ledger.release("c");
    assert_eq!(*burstable.borrow(), 50);
}

#[test]
fn who_waits_is_served_in_turn() {
    let ledger = Ledger::new(capacity());
    let mailbox = Arc::new(Mailbox::new(Arc::default(), false));
    for (uid, held) in [("full", 3000), ("low", 100), ("old", 100), ("high", 100)] {
        ledger.hold(uid, amount(held, 0));
    }
    for (uid, priority, since) in [("low", 0, 5), ("old", 0, 1), ("high", 9, 9)] {
        assert!(matches!(
            ledger.ask(uid, ask(2000, priority, since), &mailbox),
            Verdict::Deferred(_)
        ));
    }
    let held = |uid: &str| ledger.book.lock().held[uid].amount.get(CPU);
    ledger.release("full");
    // Two of three would be 4,000, but the third holds its 100 still.
    assert_eq!(["high", "old", "low"].map(held), [2000, 100, 100]);
    ledger.hold("high", amount(1000, 0));
    assert_eq!(["high", "old", "low"].map(held), [1000, 2000, 100]);
    ledger.withdraw("low");
    ledger.release("old");
    assert_eq!(held("low"), 100, "it does not want it any more");
}

#[test]
fn what_a_pod_had_counts_until_the_grant_is_in_force() {
    let ledger = Ledger::new(capacity());
    let mailbox = Arc::new(Mailbox::new(Arc::default(), false));
    ledger.hold("a", amount(3000, 0));
    assert_eq!(ledger.ask("a", ask(1000, 0, 0), &mailbox), Verdict::Granted);
    assert!(matches!(
        ledger.ask("b", ask(2000, 0, 0), &mailbox),
        Verdict::Deferred(_)
    ));
    ledger.hold("a", amount(1000, 0));
    assert_eq!(ledger.book.lock().held["b"].amount.get(CPU), 2000);
}
