//! Logs to standard error: text or one JSON object a line, filtered by level and module. Never coloured.
//!
//! Level `info` is for state changes, `debug` per object, nothing per packet.

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

/// Why logging cannot begin.
#[derive(Debug, Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log level {level:?} cannot be used: {error}; use error, warn, info, debug, trace or MODULE=LEVEL,…")]
    Filter {
        /// As given.
        level: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// Something in this process logs already.
    #[error("logging has begun before: {0}")]
    AlreadyBegun(Box<dyn std::error::Error + Send + Sync>),
}

/// Parses a filter such as `info` or `mcstat::agent=debug,warn`.
///
/// # Errors
/// It is not a filter in the syntax of `tracing_subscriber::EnvFilter`.
pub fn parse_filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|error| LogError::Filter {
        level: level.to_owned(),
        error,
    })
}

/// Begins logging for the whole process.
///
/// # Errors
/// The filter does not parse, or logging has begun before.
pub fn init(level: &str, format: Format) -> Result<(), LogError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(level)?)
        .with_writer(std::io::stderr);
    match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::AlreadyBegun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_it_is_used() {
        assert!(parse_filter("info").is_ok());
        assert!(parse_filter("mcstat::agent=debug,warn").is_ok());
        let error = parse_filter("mcstat=loud").unwrap_err().to_string();
        assert!(
            error.starts_with("log level \"mcstat=loud\" cannot be used: "),
            "{error}"
        );
    }
}
