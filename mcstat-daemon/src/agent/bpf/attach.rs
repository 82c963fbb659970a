//! Programs on veths: TCX at the head where the kernel has it (6.6), else clsact with an own priority and handle.
//!
//! The only place of the agent that speaks of ingress and egress: the Pod's outbound is tc *ingress* of the host side.
//! Nothing that is not ours is removed or replaced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use aya_obj::generated::bpf_attach_type;

use super::{
    KernelError,
    chain::{self, Chain},
    sys,
    table::Entry,
};
use crate::ledger::snapshot::Direction;

/// Our place among the filters of clsact: early, and not what `tc` gives out by itself.
const PRIORITY: u16 = 7;
/// "mc".
const HANDLE: TcHandle = TcHandle::new(0, 0x6d63);

/// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS) and its counterpart, include/uapi/linux/pkt_sched.h.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

/// How programs are put on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// TCX links, pinned.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// The two classifiers, loaded once.
pub struct Programs {
    ebpf: Ebpf,
    links: PathBuf,
    hook: Hook,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs")
            .field("links", &self.links)
            .field("hook", &self.hook)
            .finish_non_exhaustive()
    }
}

const DIRECTIONS: [(Direction, &str, TcAttachType); 2] = [
    (Direction::Outbound, "mcstat_outbound", TcAttachType::Ingress),
    (Direction::Inbound, "mcstat_inbound", TcAttachType::Egress),
];

impl Programs {
    /// Loads the classifiers into the kernel. `pins` is the directory of the maps; `hook` is clsact, or TCX where the
    /// kernel has it. That is known before anything is attached: a filter of an earlier run must be found too.
    ///
    /// # Errors
    /// The verifier's refusal, with its log.
    pub fn load(mut ebpf: Ebpf, pins: &Path, hook: Hook) -> Result<Self, KernelError> {
        for name in ["mcstat_outbound", "mcstat_inbound", "mcstat_clock"] {
            program(&mut ebpf, name)?.load()?;
        }
        let hook = if hook == Hook::Tcx && !has_tcx() {
            tracing::info!("this kernel has no TCX; attaching through clsact");
            Hook::Clsact
        } else {
            hook
        };
        Ok(Self {
            ebpf,
            links: pins.join("links"),
            hook,
        })
    }

    /// What the programs are put on.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// One of the programs.
    ///
    /// # Errors
    /// When the object lacks it.
    pub fn program(&mut self, name: &str) -> Result<&mut SchedClassifier, KernelError> {
        program(&mut self.ebpf, name)
    }

    /// Puts both programs on a port's interface, or replaces the ones that are there already, atomically.
    ///
    /// # Errors
    /// What the kernel says; the other direction is then taken off again.
    pub fn attach(&mut self, entry: &Entry) -> Result<(), KernelError> {
        let interface = super::table::text(&entry.port.host_interface).to_owned();
        for (direction, name, kind) in DIRECTIONS {
            let pin = self.pin(entry.port.id, direction);
            if let Err(error) = self.attach_one(&interface, name, kind, &pin) {
                self.detach(entry);
                return Err(error);
            }
        }
        Ok(())
    }

    fn attach_one(&mut self, interface: &str, name: &str, kind: TcAttachType, pin: &Path) -> Result<(), KernelError> {
        match self.hook {
            Hook::Tcx => self.attach_tcx(interface, name, kind, pin),
            Hook::Clsact => self.attach_clsact(interface, name, kind),
        }
    }

    fn attach_tcx(&mut self, interface: &str, name: &str, kind: TcAttachType, pin: &Path) -> Result<(), KernelError> {
        let program = program(&mut self.ebpf, name)?;
        if pin.exists() {
            // BPF_LINK_UPDATE: between the old program and the new one no packet passes uncounted.
            let link: SchedClassifierLink = FdLink::from(PinnedLink::from_pin(pin)?).try_into()?;
            let id = program.attach_to_link(link)?;
            drop(program.take_link(id)?);
            return Ok(());
        }
        let id = program.attach_with_options(interface, kind, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(pin)?;
        Ok(())
    }

    fn attach_clsact(&mut self, interface: &str, name: &str, kind: TcAttachType) -> Result<(), KernelError> {
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => {}
            // Somebody's, or ours of the other direction.
            Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(ProgramError::from(error).into()),
        }
        let program = program(&mut self.ebpf, name)?;
        let options = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        };
        let id = match program.attach_with_options(interface, kind, TcAttachOptions::Netlink(options)) {
            Ok(id) => id,
            // Ours of an earlier run: replaced in place.
            Err(_) => program.attach_to_link(
                SchedClassifierLink::attached(interface, kind, PRIORITY, HANDLE, None)
                    .map_err(ProgramError::IOError)?,
            )?,
        };
        // Dropping it would take the filter off: counting goes on when the agent ends.
        std::mem::forget(program.take_link(id)?);
        Ok(())
    }

    /// Replaces the programs of an older ABI, whose links are pinned under `from`; the links become ours.
    ///
    /// # Errors
    /// What the kernel says. A link whose interface is gone is none: it is taken off later, as for any Pod that left.
    pub fn take_over(&mut self, entry: &Entry, from: &Path) -> Result<(), KernelError> {
        for (direction, name, _) in DIRECTIONS {
            let old = from.join("links").join(format!("{}-{direction}", entry.port.id));
            let pin = self.pin(entry.port.id, direction);
            if !old.exists() {
                continue;
            }
            let program = program(&mut self.ebpf, name)?;
            let link: SchedClassifierLink = FdLink::from(PinnedLink::from_pin(&old)?).try_into()?;
            match program.attach_to_link(link) {
                Ok(id) => drop(program.take_link(id)?),
                Err(error) => tracing::warn!(link = %old.display(), %error, "a link of the old ABI is dead"),
            }
            fs::rename(&old, &pin).map_err(|error| KernelError::System {
                call: "moving the pin of a link",
                error,
            })?;
        }
        if self.hook == Hook::Clsact {
            self.attach(entry)?;
        }
        Ok(())
    }

    /// Who stands on the hooks of a port: outbound, then inbound.
    ///
    /// # Errors
    /// What the kernel says; `ENODEV` when the interface is gone.
    pub fn chains(&mut self, entry: &Entry) -> Result<[(Direction, Chain); 2], KernelError> {
        let ifindex = entry.port.ifindex;
        let failed = |error| KernelError::System {
            call: "asking who stands on a hook",
            error,
        };
        let interface = super::table::text(&entry.port.host_interface);
        if nix::net::if_::if_nametoindex(interface)
            .map_err(io::Error::from)
            .map_err(failed)?
            != ifindex
        {
            return Err(failed(io::Error::from_raw_os_error(libc::ENODEV)));
        }
        let mut chains = DIRECTIONS.map(|(direction, ..)| (direction, Chain::default()));
        for ((_, chain), (_, name, kind)) in chains.iter_mut().zip(DIRECTIONS) {
            let (hook, parent) = match kind {
                TcAttachType::Ingress => (bpf_attach_type::BPF_TCX_INGRESS, CLSACT_INGRESS),
                _ => (bpf_attach_type::BPF_TCX_EGRESS, CLSACT_EGRESS),
            };
            let found = match self.hook {
                Hook::Tcx => chain::tcx(ifindex, hook, self.program(name)?.info()?.id()),
                Hook::Clsact => {
                    chain::clsact(ifindex, hook, parent, (PRIORITY, u32::from(HANDLE))).map_err(io::Error::other)
                }
            };
            *chain = found.map_err(failed)?;
        }
        Ok(chains)
    }

    /// Takes both programs off. What is gone already is no error.
    pub fn detach(&mut self, entry: &Entry) {
        let interface = super::table::text(&entry.port.host_interface).to_owned();
        for (direction, _, kind) in DIRECTIONS {
            let pin = self.pin(entry.port.id, direction);
            if pin.exists() {
                if let Err(error) = fs::remove_file(&pin) {
                    tracing::warn!(pin = %pin.display(), %error, "cannot remove the pin of a link");
                }
            } else if self.hook == Hook::Clsact
                && nix::net::if_::if_nametoindex(interface.as_str()).is_ok_and(|index| index == entry.port.ifindex)
                && let Ok(link) = SchedClassifierLink::attached(&interface, kind, PRIORITY, HANDLE, None)
            {
                // Detached when dropped; a filter that is gone with its interface is fine.
                drop(link);
            }
        }
    }

    fn pin(&self, port: u32, direction: Direction) -> PathBuf {
        self.links.join(format!("{port}-{direction}"))
    }

    /// Removes pins of links whose port is not among `known`: left where a pin could not be removed with its port.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn remove_strays(&self, known: &[u32]) -> io::Result<usize> {
        let mut removed = 0;
        for file in fs::read_dir(&self.links)? {
            let file = file?;
            let name = file.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.split('-').next())
                .and_then(|id| id.parse().ok());
            if id.is_some_and(|id| !known.contains(&id)) {
                fs::remove_file(file.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Asks the loopback interface, which every network namespace has as its first. A kernel before 6.6, or one built without
/// TCX, does not know the attach type; whatever else it says, attaching will say it again.
fn has_tcx() -> bool {
    const LOOPBACK: u32 = 1;
    let asked = sys::tcx_programs(LOOPBACK, bpf_attach_type::BPF_TCX_INGRESS);
    asked.map_err(|error| error.raw_os_error()) != Err(Some(libc::EINVAL))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, KernelError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| KernelError::MissingProgram { name: name.to_owned() })?;
    Ok(program.try_into()?)
}
