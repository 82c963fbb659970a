//! Reading the tables of namespaces in which no process is visible: by entering them. Needs CAP_SYS_ADMIN.
//!
//! A thread of its own does it and ends with the reading, so no thread that goes on is ever in a Pod's namespace. A path
//! is trusted only when it leads to the namespace that the Pod's veth leads to. Nothing is open when this returns.

use std::{fs::File, io, os::fd::AsFd as _, path::Path, thread};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};

use super::{Namespace, Unavailable, tables::Raw};
use crate::agent::pods::link::RouteSocket;

/// `…/net` of the thread that has entered.
const OWN: &str = "/proc/thread-self/net";

/// Reads each namespace and says in it what came of it.
///
/// # Errors
/// No thread can be started; the namespaces are as they were.
pub(super) fn read_all(socket: &mut RouteSocket, namespaces: Vec<&mut Namespace>, raw: &mut Raw) -> io::Result<()> {
    let read = move || {
        let mut denied = false;
        for namespace in namespaces {
            let entered = match denied {
                true => Err(Unavailable::Denied),
                false => enter(socket, namespace),
            };
            match entered {
                Ok(()) => {
                    let gathered = namespace.tables.gather(Path::new(OWN), namespace.plan, raw);
                    namespace.settle(gathered, raw);
                }
                Err(reason) => {
                    // The right is this process's, not the namespace's: it is not asked for once for every Pod.
                    denied = reason == Unavailable::Denied;
                    namespace.outcome = Some(Err(reason));
                }
            }
        }
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns-witness".to_owned());
        thread.spawn_scoped(scope, read).map(drop)
    })
}

/// Puts the calling thread into a namespace.
fn enter(socket: &mut RouteSocket, namespace: &Namespace) -> Result<(), Unavailable> {
    let path = namespace.path.as_ref().ok_or(Unavailable::NoProcess)?;
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Unavailable::Denied,
        _ => Unavailable::NoPath,
    })?;
    // A file that is no namespace has no id either.
    let id = socket.id_of(file.as_fd()).map_err(|_| Unavailable::NoPath)?;
    if id.is_none() || id != namespace.id {
        return Err(Unavailable::NoPath);
    }
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EPERM => Unavailable::Denied,
        _ => Unavailable::NoPath,
    })
}
