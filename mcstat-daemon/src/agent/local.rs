//! The node-local API: this node's view over a unix socket, in the words of the aggregator.
//!
//! It serves the very router that the aggregator serves, over an index that holds one node, so that `mcstat get` on the
//! node and kubectl in the cluster show the same. Nobody can push to it. Who may connect is decided by the socket's
//! mode, 0660. A socket that another agent answers on is left alone; a dead one is replaced atomically.

use std::{
    ffi::OsString,
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

use super::publish::Summaries;
use crate::aggregator::{
    http::{self, Role},
    index::SharedIndex,
};

/// Owner and group may ask; nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Why the socket cannot be served.
#[derive(Debug, Error)]
pub enum LocalError {
    /// An agent answers there.
    #[error("another agent answers on {0}: stop it, or give this one its own socket")]
    AlreadyServed(PathBuf),
    /// Something else has the name.
    #[error("{0} exists and is no socket: remove it, or choose another path for the socket")]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("{what} {path} failed: {error}; check the path of the socket and the rights of the agent")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// Serves the newest summary on `socket` until `shutdown` completes, then removes the socket.
///
/// # Errors
/// Another agent answers on the socket, or it cannot be made or served.
pub async fn serve(
    socket: &Path,
    mut summaries: Summaries,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), LocalError> {
    let listener = listen(socket).await?;
    let made = inode(socket);
    let index = Arc::new(SharedIndex::default());
    let router = http::router(Arc::clone(&index), Role::Node, Timestamp::now);
    let feed = async move {
        loop {
            let newest = summaries.borrow_and_update().clone();
            if let Some(newest) = newest {
                index.accept(newest.as_ref().clone(), Timestamp::now());
            }
            if summaries.changed().await.is_err() {
                // The tick is gone; what it said last is served, and becomes stale, until the shutdown.
                return std::future::pending::<()>().await;
            }
        }
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = feed => Ok(()),
    };
    // Only our own: another agent may have taken the name since.
    if made.is_some() && inode(socket) == made {
        let _ = fs::remove_file(socket);
    }
    outcome.map_err(|error| failed("serving", socket)(error))
}

/// Binds under a name of its own, sets the mode and renames: the socket appears complete or not at all, and a dead one
/// is replaced in the same step.
async fn listen(socket: &Path) -> Result<UnixListener, LocalError> {
    refuse_if_served(socket).await?;
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed("creating", folder))?;
    }
    let mut own = OsString::from(socket);
    own.push(format!(".{}", std::process::id()));
    let own = PathBuf::from(own);
    // Left behind by a killed process of the same id, or not there.
    let _ = fs::remove_file(&own);
    let listener = UnixListener::bind(&own).map_err(failed("binding", &own))?;
    let published = fs::set_permissions(&own, fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(failed("setting the mode of", &own))
        .and_then(|()| fs::rename(&own, socket).map_err(failed("renaming to", socket)));
    if let Err(error) = published {
        let _ = fs::remove_file(&own);
        return Err(error);
    }
    Ok(listener)
}

async fn refuse_if_served(socket: &Path) -> Result<(), LocalError> {
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at", socket)(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(LocalError::NotASocket(socket.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(socket).await {
        Ok(_) => Err(LocalError::AlreadyServed(socket.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %socket.display(), "replacing the socket of an agent that is gone");
            Ok(())
        }
        Err(error) => Err(failed("connecting to", socket)(error)),
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    let path = path.to_owned();
    move |error| LocalError::Io { what, path, error }
}
