//! The random worlds and the naive evaluator of the compiler's own tests: the same sources.

use mcstat::ledger::verdict::{Action, Kind, Object, PodName, Transport};
pub(crate) use seed::Random;

#[path = "../../src/ledger/verdict/tests/seed.rs"]
mod seed;

#[path = "../../src/ledger/verdict/tests/random/documents.rs"]
mod documents;
#[path = "../../src/ledger/verdict/tests/random/members.rs"]
mod members;
#[path = "../../src/ledger/verdict/tests/random/naive.rs"]
mod naive;
#[path = "../../src/ledger/verdict/tests/random/world.rs"]
mod world;

pub struct World(world::World);

/// What a verdict is about.
#[derive(Debug, Clone)]
pub struct Packet {
    pub space: u8,
    pub address: std::net::Ipv4Addr,
    pub transport: Transport,
}

pub fn pods() -> Vec<PodName> {
    world::pods()
}

pub(crate) fn packet(random: &mut Random) -> Packet {
    let world::Packet {
        space,
        address,
        transport,
    } = world::Packet::random(random);
    Packet {
        space,
        address,
        transport,
    }
}

impl World {
    pub(crate) fn random(random: &mut Random) -> Self {
        Self(world::World::random(random))
    }

    pub(crate) fn changed(&self, random: &mut Random) -> Self {
        Self(self.0.changed(random))
    }

    pub fn objects(&self) -> Vec<Object> {
        let objects = self.0.documents().into_iter().map(|document| {
            let header = serde_json::from_value(document.clone()).unwrap();
            Object::read(Kind::of(&header).unwrap(), document).unwrap()
        });
        objects.collect()
    }

    /// Policy, rule and action that decide, by the definitions.
    pub fn judge(&self, pod: &PodName, packet: &Packet) -> Option<(String, String, Action)> {
        let packet = world::Packet {
            space: packet.space,
            address: packet.address,
            transport: packet.transport,
        };
        naive::judge(&self.0, pod, &packet)
    }

    /// Whether that rule asks for ports.
    pub fn asks_for_ports(&self, policy: &str, rule: &str) -> bool {
        self.0.asks_for_ports(policy, rule)
    }
}
