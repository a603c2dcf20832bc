//! The tokens under which sources are registered in the readiness queue of a loop. The upper bits
//! are the number of the service that a source belongs to, the lower bits identify the source.

/// Number of services that a loop can have.
pub(crate) const SERVICES_MAX: usize = 1 << SERVICE_BITS;

const SERVICE_BITS: u32 = 8;
const SOURCE_BITS: u32 = usize::BITS - SERVICE_BITS;
const SOURCES: usize = 1 << SOURCE_BITS;

const WAKER: usize = SOURCES - 1;
const SIGNALS: usize = SOURCES - 2;
// Listeners are numbered up to 65,535: the numbers above are for other kinds of sources. Foreign
// descriptors are fewer than the descriptors of a process, which fit.
const FOREIGN: usize = SOURCES / 4 * 3;
const LISTENERS: usize = SOURCES / 2;
const ATTEMPTS: usize = LISTENERS / 2;

/// The highest number of connections, and of connection attempts, that tokens can distinguish.
pub(crate) const CONNECTIONS_MAX: usize = ATTEMPTS;

/// A source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Wakes the loop; belongs to no service.
    Waker,
    /// Signals of the process; belong to no service.
    Signals,
    Listener(usize),
    Attempt(usize),
    /// A descriptor of a service, by its slot.
    Foreign(usize),
    /// A connection, by its slot.
    Connection(usize),
}

impl Source {
    /// Returns the token of the source for the service with this number.
    pub(crate) fn token(self, service: usize) -> usize {
        let source = match self {
            Self::Waker => WAKER,
            Self::Signals => SIGNALS,
            Self::Foreign(slot) => FOREIGN + slot,
            Self::Listener(index) => LISTENERS + index,
            Self::Attempt(index) => ATTEMPTS + index,
            Self::Connection(slot) => slot,
        };
        let service = if fault!("services-share-tokens") { 0 } else { service };
        service << SOURCE_BITS | source
    }

    /// Returns the service and the source that a token stands for.
    pub(crate) fn of(token: usize) -> (usize, Self) {
        let source = match token % SOURCES {
            WAKER => Self::Waker,
            SIGNALS => Self::Signals,
            foreign @ FOREIGN.. => Self::Foreign(foreign - FOREIGN),
            listener @ LISTENERS.. => Self::Listener(listener - LISTENERS),
            attempt @ ATTEMPTS.. => Self::Attempt(attempt - ATTEMPTS),
            slot => Self::Connection(slot),
        };
        (token >> SOURCE_BITS, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_for_one_source_of_one_service() {
        let last = CONNECTIONS_MAX - 1;
        for source in [
            Source::Waker,
            Source::Signals,
            Source::Listener(0),
            Source::Listener(65_534),
            Source::Foreign(0),
            Source::Foreign(SOURCES / 4 - 3),
            Source::Attempt(0),
            Source::Attempt(last),
            Source::Connection(0),
            Source::Connection(last),
        ] {
            for service in [0, 1, SERVICES_MAX - 1] {
                assert_eq!(Source::of(source.token(service)), (service, source));
            }
        }
    }
}
