//! Random traffic, random lag, random reading times: a switch simulated burst by burst.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Between two ticks.
#[derive(Debug, Clone)]
struct Step {
    /// When each of a few bursts comes, in milliseconds after the tick before; its packets; whether it is outbound.
    bursts: Vec<(i64, u16, bool)>,
    /// The time from tick to tick.
    milliseconds: i64,
    /// How long before the maps the switch was asked.
    delay: i64,
    /// When packets are lost, how many outbound and inbound.
    lost: (i64, u16, u16),
}

fn steps(losses: bool) -> impl Strategy<Value = Vec<Step>> {
    let burst = (0..1000i64, 0..800u16, any::<bool>());
    let step = (
        vec(burst, 0..5),
        400..1500i64,
        1..200i64,
        (0..1000i64, 0..50u16, 0..50u16),
    );
    let step = step.prop_map(move |(bursts, milliseconds, delay, lost)| Step {
        bursts,
        milliseconds,
        delay,
        lost: if losses { lost } else { (0, 0, 0) },
    });
    vec(step, 1..25)
}

/// What passed and when: outbound (sent, counted), inbound (decided, handed over).
#[derive(Default)]
struct World {
    outbound: Vec<(Timestamp, u64, u64)>,
    inbound: Vec<(Timestamp, u64, u64)>,
}

fn until(events: &[(Timestamp, u64, u64)], at: Timestamp) -> (u64, u64, Option<Timestamp>) {
    let passed = events.iter().filter(|event| event.0 <= at);
    passed.fold((0, 0, None), |(first, second, seen), event| {
        (first + event.1, second + event.2, seen.max(Some(event.0)))
    })
}

impl World {
    fn pass(&mut self, began: Timestamp, step: &Step) {
        let at = |milliseconds: i64| began + SignedDuration::from_millis(1 + milliseconds % (step.milliseconds - 1));
        for &(when, packets, outbound) in &step.bursts {
            let packets = u64::from(packets);
            let events = if outbound {
                &mut self.outbound
            } else {
                &mut self.inbound
            };
            events.push((at(when), packets, packets));
        }
        let (when, out, copies) = step.lost;
        self.outbound.push((at(when), out.into(), 0));
        self.inbound.push((at(when), copies.into(), 0));
    }

    /// What was lost so far, outbound and inbound.
    fn lost(&self, now: Timestamp) -> [u64; 2] {
        [&self.outbound, &self.inbound].map(|events| {
            let (all, some, _) = until(events, now);
            all - some
        })
    }

    /// Sets the counters of Pod 0: the veth's as of now, the switch's as it wrote them down before it was asked.
    fn count(&self, lab: &mut Lab, written: Timestamp) {
        let (sent, _, sent_seen) = until(&self.outbound, lab.now);
        let (_, handed, handed_seen) = until(&self.inbound, lab.now);
        let port = &mut lab.ports[0];
        let sides = [
            (&mut port.outbound, sent, sent_seen),
            (&mut port.inbound, handed, handed_seen),
        ];
        for (reading, packets, seen) in sides {
            *reading = DirectionReading::default();
            if let Some(seen) = seen {
                add(reading, "239.1.1.1", (packets, packets, packets * FRAME), seen);
            }
        }
        let set = |flow: &mut Flow, packets| (flow.packets, flow.bytes) = (packets, packets * FRAME);
        set(lab.outbound.get_mut(&0).unwrap(), until(&self.outbound, written).1);
        set(lab.inbound.get_mut(&0).unwrap(), until(&self.inbound, written).0);
    }
}

/// The switch writes down every `period` milliseconds.
fn last_written(asked: Timestamp, period: i64) -> Timestamp {
    let since = i64::try_from(asked.duration_since(start()).as_millis()).unwrap();
    start() + SignedDuration::from_millis(since / period * period)
}

fn run(lab: &mut Lab, world: &World, delay: i64, milliseconds: i64, period: i64) -> Status {
    lab.now += SignedDuration::from_millis(milliseconds);
    let asked = lab.now - SignedDuration::from_millis(delay.min(milliseconds - 1));
    world.count(lab, last_written(asked, period));
    let mut snapshot = lab.snapshot();
    if let SwitchReading::Read(account) = &mut snapshot.switch {
        account.before = asked;
    }
    lab.ledger.tick(&snapshot).pods.remove(0).status
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Healthy traffic, in the saw-tooth of up to 530 ms: no cause is ever named, and nothing is booked. The agent may be
    /// restarted at any moment, and the connection to the switch be lost: a baseline in the midst of traffic.
    #[test]
    fn healthy_traffic_names_no_cause(
        steps in steps(false), period in 50..530i64, restart in 0..25usize, reconnect in 0..25usize,
    ) {
        let (mut lab, mut world) = (Lab::new(1), World::default());
        for (index, step) in steps.iter().enumerate() {
            if index == restart {
                lab.restart_agent();
            }
            if index == reconnect {
                lab.connection += 1;
            }
            world.pass(lab.now, step);
            let status = run(&mut lab, &world, step.delay, step.milliseconds, period);
            prop_assert!(listed(&status).is_empty(), "tick {}: {:?}", index, listed(&status));
            prop_assert_eq!(dropped(&status), [Some(0), Some(0)]);
            prop_assert_ne!(agrees(&status).0, "False");
        }
    }

    /// What is lost is booked exactly after two quiet ticks, never more, and what is booked never falls; over a restart
    /// of the agent, too.
    #[test]
    fn losses_are_booked_exactly(steps in steps(true), period in 50..530i64, restart in 0..50usize) {
        let (mut lab, mut world) = (Lab::new(1), World::default());
        let mut before = [0, 0];
        for (index, step) in steps.iter().enumerate() {
            if index == restart {
                lab.restart_agent();
            }
            world.pass(lab.now, step);
            let status = run(&mut lab, &world, step.delay, step.milliseconds, period);
            let (lost, now) = (world.lost(lab.now), dropped(&status).map(Option::unwrap));
            for side in 0..2 {
                prop_assert!(now[side] >= before[side], "tick {}: {:?} fell to {:?}", index, before, now);
                prop_assert!(now[side] <= lost[side], "tick {}: booked {:?} of {:?}", index, now, lost);
            }
            before = now;
        }
        run(&mut lab, &world, 1, 1000, period);
        let status = run(&mut lab, &world, 1, 1000, period);
        let lost = world.lost(lab.now);
        prop_assert_eq!(dropped(&status).map(Option::unwrap), lost);
        if restart >= steps.len() {
            let bytes: u64 = listed(&status).iter().map(|found| found.4.unwrap()).sum();
            prop_assert_eq!(bytes, (lost[0] + lost[1]) * FRAME);
        }
    }
}
