//! Everything that can go wrong, in one enum.

use std::fmt;

/// The result of every fallible verb of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Each message names the argument (and the row) or the section of the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An argument has a wrong value, shape or range.
    Invalid {
        /// The name of the argument as the public interface spells it.
        argument: &'static str,
        /// What is wrong with it, and where.
        message: String,
    },
    /// No memory, episode or channel of that name or id.
    Unknown {
        /// `"memory"`, `"episode"` or `"channel"`.
        kind: &'static str,
        /// The id or name that was asked for.
        name: String,
    },
    /// The operation is not possible in the store's present state.
    State(String),
    /// The store was filled by another embedder.
    Embedder {
        /// The fingerprint the store recorded.
        recorded: String,
        /// The fingerprint that was offered.
        offered: String,
    },
    /// A damaged or foreign file.
    Format {
        /// The section of the file that is damaged.
        section: String,
        /// What is wrong with it.
        message: String,
    },
    /// Another writer holds the store's directory.
    Locked {
        /// The directory.
        path: std::path::PathBuf,
        /// The process of the writer, if it is known, as its machine or container counts.
        process: Option<u32>,
        /// The machine of the writer, if it is known to be another.
        machine: Option<String>,
    },
    /// The caller wanted it to stop.
    Interrupted,
    /// The operating system refused.
    Io(std::io::Error),
}

impl Error {
    pub(crate) fn invalid(argument: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            argument,
            message: message.into(),
        }
    }

    pub(crate) fn unknown(kind: &'static str, name: impl fmt::Display) -> Self {
        Self::Unknown {
            kind,
            name: name.to_string(),
        }
    }

    pub(crate) fn format(section: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Format {
            section: section.into(),
            message: message.into(),
        }
    }
}

/// Returns [`Error::Invalid`] naming an argument where a condition holds.
macro_rules! invalid_if {
    ($condition:expr, $argument:expr, $($message:tt)+) => {
        if $condition {
            return Err($crate::error::Error::invalid($argument, format!($($message)+)));
        }
    };
}
pub(crate) use invalid_if;

/// Refuses an argument that does not lie in `[least, most]`.
pub(crate) fn in_range<T: Copy + PartialOrd + fmt::Display>(
    argument: &'static str,
    x: T,
    least: T,
    most: T,
) -> Result<()> {
    let inside = least <= x && x <= most;
    invalid_if!(!inside, argument, "{x} is not in [{least}, {most}]");
    Ok(())
}

/// Returns [`Error::Format`] naming a section where a condition holds.
macro_rules! damaged_if {
    ($condition:expr, $section:expr, $($message:tt)+) => {
        if $condition {
            return Err($crate::error::Error::format($section, format!($($message)+)));
        }
    };
}
pub(crate) use damaged_if;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { argument, message } => write!(f, "{argument}: {message}"),
            Self::Unknown { kind, name } => write!(f, "unknown {kind} {name}"),
            Self::State(message) => f.write_str(message),
            Self::Embedder { recorded, offered } => write!(
                f,
                "the store was filled by embedder {recorded:?}; {offered:?} would mix two spaces"
            ),
            Self::Format { section, message } => write!(f, "{section}: {message}"),
            Self::Locked {
                path,
                process,
                machine,
            } => {
                write!(f, "{}: open for writing ", path.display())?;
                match (process, machine) {
                    (Some(process), Some(machine)) => {
                        write!(f, "in process {process} of {machine:?}")?;
                    }
                    (Some(process), None) if *process == std::process::id() => {
                        f.write_str("in this process already")?;
                    }
                    (Some(process), None) => write!(f, "in process {process}")?,
                    (None, _) => f.write_str("elsewhere")?,
                }
                f.write_str("; it can be opened read-only meanwhile")
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
