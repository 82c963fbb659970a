//! Who else stands on a port's hooks: what sees its packets before our programs does, and whether ours are still there.
//!
//! A program before ours can drop or redirect a packet, which is then not counted. Nothing is changed here: who stands
//! before us was put there on purpose. Names need `CAP_SYS_ADMIN`, else a program is told by its id.

use std::io;

use aya_obj::generated::bpf_attach_type;

use super::sys;
use crate::agent::pods::link::{LinkError, RouteSocket, attributes, native_u32, text};

/// One hook of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Whether our program is on it.
    pub ours: bool,
    /// What sees a packet before our program; all of the hook when ours is not on it.
    pub before: Vec<String>,
}

/// The TCX hook, on which our program has the id `ours`.
///
/// # Errors
/// What bpf(2) returns.
pub fn tcx(ifindex: u32, hook: bpf_attach_type, ours: u32) -> io::Result<Chain> {
    let ids = sys::tcx_programs(ifindex, hook)?;
    let before = ids.iter().take_while(|id| **id != ours);
    Ok(Chain {
        ours: ids.contains(&ours),
        before: before.map(|id| program(*id)).collect(),
    })
}

/// The clsact qdisc's filters behind the TCX hook, `parent` being the direction, ours a filter of this priority and handle.
///
/// # Errors
/// [`LinkError`].
pub fn clsact(ifindex: u32, hook: bpf_attach_type, parent: u32, ours: (u16, u32)) -> Result<Chain, LinkError> {
    let filters = filters(ifindex, parent)?;
    // Before Linux 6.6 there is no such hook, and nothing on it.
    let tcx = sys::tcx_programs(ifindex, hook).unwrap_or_default();
    let mut before: Vec<_> = tcx.into_iter().map(program).collect();
    let is_ours = |filter: &Filter| (filter.priority, filter.handle) == ours && filter.kind == "bpf";
    let others = filters.iter().take_while(|filter| !is_ours(filter));
    before.extend(others.map(|filter| {
        let name = filter.name.as_deref().unwrap_or(&filter.kind);
        format!("{name} (tc priority {})", filter.priority)
    }));
    before.dedup();
    Ok(Chain {
        ours: filters.iter().any(is_ours),
        before,
    })
}

fn program(id: u32) -> String {
    match sys::program_name(id) {
        Some(name) if !name.is_empty() => format!("{name} (program {id})"),
        _ => format!("program {id}"),
    }
}

/// One filter of a qdisc.
struct Filter {
    /// The lower sees a packet first.
    priority: u16,
    /// Tells those of one priority apart.
    handle: u32,
    /// The classifier: `bpf`, `flower`, `u32`, ...
    kind: String,
    /// Of a `bpf` classifier: what its program was called when it was attached.
    name: Option<String>,
}

/// The filters of a qdisc's direction, in the order in which they see a packet (`RTM_GETTFILTER`); none where there is no
/// such qdisc.
fn filters(ifindex: u32, parent: u32) -> Result<Vec<Filter>, LinkError> {
    // struct tcmsg: family and padding, index, handle, parent, info.
    let words = [0, ifindex, 0, parent, 0];
    let request: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let answers = RouteSocket::open()?.list("listing tc filters", libc::RTM_GETTFILTER, &request)?;
    let filters = answers.iter().filter(|answer| answer.kind == libc::RTM_NEWTFILTER);
    Ok(filters.filter_map(|answer| read_filter(&answer.body)).collect())
}

/// `struct tcmsg` (handle at 8, priority in the upper half of info at 16) and its attributes. `None` for what is no filter
/// itself (handle 0), or stands in another chain than the first, to which only another filter leads.
fn read_filter(body: &[u8]) -> Option<Filter> {
    const TCA_KIND: u16 = 1;
    const TCA_OPTIONS: u16 = 2;
    const TCA_CHAIN: u16 = 11;
    const TCA_BPF_NAME: u16 = 7;
    let mut filter = Filter {
        priority: (native_u32(body.get(16..)?)? >> 16) as u16,
        handle: native_u32(body.get(8..)?)?,
        kind: String::new(),
        name: None,
    };
    for (kind, value) in attributes(body.get(20..)?) {
        match kind {
            TCA_KIND => filter.kind = text(value),
            TCA_CHAIN if native_u32(value)? != 0 => return None,
            TCA_OPTIONS if filter.kind == "bpf" => {
                let mut options = attributes(value);
                filter.name = options
                    .find(|(kind, _)| *kind == TCA_BPF_NAME)
                    .map(|(_, name)| text(name));
            }
            _ => {}
        }
    }
    (filter.handle != 0).then_some(filter)
}
