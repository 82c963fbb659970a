//! Who stands on the hooks of the ports' interfaces: others before us are told; where somebody took us off, that is told and
//! we are put back.

use std::collections::BTreeMap;

use tracing::warn;

use super::Ports;
use crate::{
    agent::bpf::{
        chain::Chain,
        now, read,
        table::{self, Entry, text},
    },
    ledger::snapshot::{Direction, UncountedPort},
};

impl Ports {
    /// Tells of programs that see packets before ours, and has ours put back where somebody took them off.
    pub(super) fn look_at_hooks(&mut self) {
        let mut behind = BTreeMap::new();
        for (entry, chains) in self.look_for_detached(|_| true) {
            let id = entry.port.id;
            if let Some(told) = stands_behind(&entry, &chains) {
                if self.behind.get(&id) != Some(&told) {
                    warn!(
                        pod = %format_args!("{}/{}", told.pod.namespace, told.pod.name),
                        host_interface = text(&entry.port.host_interface),
                        "{}", told.message
                    );
                }
                behind.insert(id, told);
            }
        }
        self.behind = behind;
        self.tell();
    }

    /// Looks who stands on the hooks of these ports. Where ours no longer do, that is told, and they are put back; the others
    /// are returned.
    pub(super) fn look_for_detached(&mut self, which: impl Fn(u32) -> bool) -> Vec<(Entry, [(Direction, Chain); 2])> {
        let mut standing = Vec::new();
        for entry in table::entries(&self.maps)
            .into_iter()
            .filter(|entry| which(entry.port.id))
        {
            // An interface that is gone is the source's to tell.
            let (true, Ok(chains)) = (self.attached.contains(&entry.port.id), self.programs.chains(&entry)) else {
                continue;
            };
            if chains.iter().all(|(_, chain)| chain.ours) {
                standing.push((entry, chains));
                continue;
            }
            warn!(
                pod = %format_args!("{}/{}", text(&entry.port.namespace), text(&entry.port.pod)),
                host_interface = text(&entry.port.host_interface),
                "somebody took mcstat's programs off; packets passed uncounted; putting them back"
            );
            self.attached.remove(&entry.port.id);
            self.off.insert(entry.port.id);
            self.unfinished = true;
            self.tell_detached(entry.port.id);
        }
        standing
    }

    /// Tells the tick that packets of a port may have passed uncounted until now.
    pub(super) fn tell_detached(&self, id: u32) {
        self.channels.detached.send_modify(|detached| {
            detached.insert(id, now());
        });
    }
}

/// What is told of a port whose packets others see first.
fn stands_behind(entry: &Entry, chains: &[(Direction, Chain)]) -> Option<UncountedPort> {
    let sentences: Vec<_> = chains
        .iter()
        .filter(|(_, chain)| !chain.before.is_empty())
        .map(|(direction, chain)| format!("{} sees {direction} packets", chain.before.join(", ")))
        .collect();
    (!sentences.is_empty()).then(|| UncountedPort {
        pod: read::pod(&entry.port),
        interface: text(&entry.port.interface).to_owned(),
        reason: "BehindAnotherProgram".to_owned(),
        message: format!(
            "{} before mcstat on {}; what it drops or redirects is not counted",
            sentences.join(", "),
            text(&entry.port.host_interface)
        ),
    })
}
