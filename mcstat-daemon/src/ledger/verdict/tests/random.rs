//! 100,000 random cases: what the compiled form decides against the definitions, rule by rule and packet by packet.
//!
//! [`world`] makes random policies, groups, tiers, Namespaces and Pods, as plain values. They are judged twice: written
//! as documents, read, compiled and looked up; and by [`naive`], which walks all rules in their order for every packet and
//! knows nothing of the code under test. Each compiler goes through several worlds, so changes are held against it too.

mod documents;
mod members;
mod naive;
mod world;

use std::collections::BTreeMap;

use self::{
    naive::judge,
    world::{Packet, World},
};
use super::{seed::Random, *};

const COMPILERS: u64 = 250;
const WORLDS: usize = 8;
const PACKETS: usize = 50;

/// What each packet's verdict is by the maps: policy, rule, action.
fn look_up(
    tables: &Tables,
    rules: &BTreeMap<u16, RuleRow>,
    pod: &PodName,
    packet: &Packet,
) -> Option<(String, String, Action)> {
    let verdict = tables.judge(pod, packet.space, packet.address, packet.transport);
    let Some(slot) = verdict.rule else {
        assert_eq!(verdict.action, Action::Allow, "no rule allows");
        return None;
    };
    let rule = &rules[&slot];
    Some((rule.policy.to_string(), rule.id.name.to_string(), verdict.action))
}

#[test]
fn the_compiled_form_decides_as_the_definitions_do() {
    let (mut cases, mut decided, mut dropped, mut by_port) = (0, 0, 0, 0);
    for seed in 0..COMPILERS {
        let mut random = Random::new(seed);
        let names = world::pods();
        let mut compiler = Compiler::new(Limits {
            rules: 200,
            lists: 200,
            sets: 40,
            entries: 10_000,
        });
        let mut tables = Tables::default();
        let mut world = World::random(&mut random);
        let mut before: Option<(World, BTreeMap<u16, RuleRow>)> = None;
        for step in 0..WORLDS {
            let model = world
                .documents()
                .into_iter()
                .map(|document| read_json(document, seed))
                .collect();
            let change = compiler.compile(&model, &names).unwrap();
            assert_eq!(change.problems, [], "seed {seed}, step {step}");
            let packets: Vec<_> = (0..PACKETS)
                .map(|_| (random.below(names.len()), Packet::random(&mut random)))
                .collect();
            tables.insert(&change);
            for (pod, packet) in &packets {
                if let Some((world, rules)) = &before {
                    let old = look_up(&tables, rules, &names[*pod], packet);
                    assert_eq!(
                        old,
                        judge(world, &names[*pod], packet),
                        "before the flip: seed {seed}, step {step}, {packet:?}"
                    );
                }
            }
            let rules: BTreeMap<u16, RuleRow> = compiler.rules().map(|rule| (rule.slot, rule.clone())).collect();
            tables.flip(&change);
            let first = packets
                .iter()
                .map(|(pod, packet)| look_up(&tables, &rules, &names[*pod], packet))
                .collect::<Vec<_>>();
            tables.delete(&change.retired);
            for ((pod, packet), first) in packets.iter().zip(first) {
                let found = look_up(&tables, &rules, &names[*pod], packet);
                assert_eq!(found, first, "deleting what is not used changes nothing");
                assert_eq!(
                    found,
                    judge(&world, &names[*pod], packet),
                    "seed {seed}, step {step}, {pod}, {packet:?}\n{world:#?}"
                );
                cases += 1;
                decided += usize::from(found.is_some());
                dropped += usize::from(found.as_ref().is_some_and(|(_, _, action)| *action == Action::Drop));
                by_port += usize::from(found.is_some_and(|(policy, rule, _)| world.asks_for_ports(&policy, &rule)));
            }
            compiler.release(change.retired);
            let next = world.changed(&mut random);
            before = Some((std::mem::replace(&mut world, next), rules));
        }
    }
    assert_eq!(cases, 100_000);
    // The cases are worth their number only when rules of all kinds decide many of them.
    let shares = [decided, dropped, by_port].map(|count| count * 100 / cases);
    println!(
        "decided by a rule {} %, dropped {} %, by a rule with ports {} %",
        shares[0], shares[1], shares[2]
    );
    assert!(shares[0] >= 30 && shares[1] >= 10 && shares[2] >= 3, "{shares:?}");
}

fn read_json(document: serde_json::Value, seed: u64) -> Object {
    let header = serde_json::from_value(document.clone()).unwrap();
    let kind = Kind::of(&header).unwrap();
    Object::read(kind, document).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}
