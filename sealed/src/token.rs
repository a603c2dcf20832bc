//! The tokens under which sources are registered in the readiness queue of a loop. The upper bits
//! are the number of the service that a source belongs to, the lower bits identify the source.

/// Number of services that a loop can have.
pub(crate) const SERVICES_MAX: usize = 1 << SERVICE_BITS;

const SERVICE_BITS: u32 = 8;
const SOURCE_BITS: u32 = usize::BITS - SERVICE_BITS;
const SOURCES: usize = 1 << SOURCE_BITS;

const WAKER: usize = SOURCES - 1;
const SIGNALS: usize = SOURCES - 2;
const DATAGRAMS: usize = SOURCES / 4 * 3;
// A process has fewer descriptors than there are tokens for foreign ones, on any system.
const FOREIGN: usize = SOURCES / 8 * 5;
// A service has at most 65,535 listeners.
const LISTENERS: usize = SOURCES / 2;
const ATTEMPTS: usize = LISTENERS / 2;

/// The highest number of connections, and of connection attempts, that tokens can distinguish.
pub(crate) const CONNECTIONS_MAX: usize = ATTEMPTS;

/// The highest number of datagram sockets that tokens can distinguish.
pub(crate) const DATAGRAMS_MAX: usize = SIGNALS - DATAGRAMS;

/// A source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Wakes the loop; belongs to no service.
    Waker,
    /// Signals of the process; belong to no service.
    Signals,
    Listener(usize),
    /// A datagram socket, by its slot.
    Datagram(usize),
    Attempt(usize),
    /// A descriptor of a service, by its slot.
    Foreign(usize),
    /// A connection, by its slot.
    Connection(usize),
}

impl Registered {
    /// Returns the token of the source for the service with this number.
    pub(crate) fn token(self, service: usize) -> usize {
        let source = match self {
            Self::Waker => WAKER,
            Self::Signals => SIGNALS,
            Self::Datagram(slot) => DATAGRAMS + slot,
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
            datagram @ DATAGRAMS.. => Self::Datagram(datagram - DATAGRAMS),
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
            Registered::Waker,
            Registered::Signals,
            Registered::Listener(0),
            Registered::Listener(65_534),
            Registered::Datagram(0),
            Registered::Datagram(DATAGRAMS_MAX - 1),
            Registered::Foreign(0),
            Registered::Foreign(DATAGRAMS - FOREIGN - 1),
            Registered::Attempt(0),
            Registered::Attempt(last),
            Registered::Connection(0),
            Registered::Connection(last),
        ] {
            for service in [0, 1, SERVICES_MAX - 1] {
                assert_eq!(Registered::of(source.token(service)), (service, source));
            }
        }
    }
}
