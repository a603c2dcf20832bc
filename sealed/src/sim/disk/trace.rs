use std::fmt;
use std::sync::Arc;

type Label = Arc<str>;

/// What happened on a disk, as the trace names it.
#[derive(Debug, Hash)]
pub(in crate::sim) enum Did {
    Opens { path: Label },
    Creates { path: Label },
    Renames { from: Label, to: Label },
    Removes { path: Label },
    SyncsNames { path: Label, changes: usize },
    Locks { path: Label },
    Unlocks { path: Label },
    Reads { path: Label, offset: u64, count: usize },
    Writes { path: Label, offset: u64, offered: usize, count: usize, digest: u64 },
    Syncs { path: Label, sectors: usize },
    SetsLength { path: Label, length: u64 },
    Allocates { path: Label, length: u64 },
    Fails { path: Label, doing: &'static str },
    Full { path: Label },
    Dies,
    Killed,
    PowerCut,
    LosesNames { lost: usize, of: usize },
    LosesWrites { path: Label, sectors: usize, length: usize },
    Damages { path: Label },
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opens { path } => write!(f, "{path} is opened"),
            Self::Creates { path } => write!(f, "{path} is created"),
            Self::Renames { from, to } => write!(f, "{from} is renamed to {to}"),
            Self::Removes { path } => write!(f, "{path} is removed"),
            Self::SyncsNames { path, changes } => write!(f, "{changes} changes of names in {path} are synced"),
            Self::Locks { path } => write!(f, "{path} is locked"),
            Self::Unlocks { path } => write!(f, "{path} is unlocked"),
            Self::Reads { path, offset, count } => write!(f, "{count} are read at {offset} of {path}"),
            Self::Writes { path, offset, offered, count, .. } => {
                write!(f, "{count} of {offered} are written at {offset} of {path}")
            }
            Self::Syncs { path, sectors } => write!(f, "{sectors} sectors of {path} are synced"),
            Self::SetsLength { path, length } => write!(f, "the length of {path} is set to {length}"),
            Self::Allocates { path, length } => write!(f, "{length} are allocated for {path}"),
            Self::Fails { path, doing } => write!(f, "{doing} of {path} fails"),
            Self::Full { path } => write!(f, "there is no space for {path}"),
            Self::Dies => write!(f, "the process stops here"),
            Self::Killed => write!(f, "the process is killed"),
            Self::PowerCut => write!(f, "the power is cut"),
            Self::LosesNames { lost, of } => write!(f, "  {lost} of {of} changes of names are lost"),
            Self::LosesWrites { path, sectors, length } => {
                write!(f, "  {path} loses some of {sectors} sectors, and has {length} bytes")
            }
            Self::Damages { path } => write!(f, "the test changes {path}"),
        }
    }
}
